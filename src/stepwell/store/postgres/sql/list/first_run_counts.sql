select event_no, count(*) from run
where event_no = any($1::bigint[]) and event_no is not null and replay = 0 group by event_no
