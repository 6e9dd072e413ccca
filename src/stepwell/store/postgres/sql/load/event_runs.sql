select event_no, id from run where event_no = any($1::bigint[]) and event_no is not null order by no
