select {entry} from entry where run_no = $1 and seq > $2 and seq < $3 order by seq
