select {entry} from entry where run_no = $1 and seq > $2 order by seq limit $3
