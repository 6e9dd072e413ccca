delete from blob where run_no = 0 and event_no = (select no from event where scope = ?1 and id = ?2)
