select {output} from output where run_no = $1 and n > $2 order by n limit $3
