delete from output where run_no = ?1
