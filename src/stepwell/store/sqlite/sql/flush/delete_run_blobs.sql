delete from blob where run_no = ?1 and event_no = 0
