select at from entry where run_no = $1 and seq = $2
