select {entry} from entry where (run_no, seq) > ($1, $2) and run_no <= $3 order by run_no, seq limit $4
