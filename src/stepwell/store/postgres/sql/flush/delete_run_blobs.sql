delete from blob where run_no = any($1::bigint[]) and run_no > 0 and event_no = 0
