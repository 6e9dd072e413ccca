delete from entry where run_no = any($1::bigint[])
