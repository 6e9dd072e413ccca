delete from entry where run_no = ?1
