select {b.blob} from unnest($1::bigint[], $2::text[]) as e (run_no, hash)
join blob as b on b.run_no = e.run_no and b.event_no = 0 and b.hash = e.hash
