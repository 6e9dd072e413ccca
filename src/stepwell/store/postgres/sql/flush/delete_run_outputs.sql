delete from output where run_no = any($1::bigint[])
