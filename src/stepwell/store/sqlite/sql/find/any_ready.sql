select 1 from task where state = 'ready' and pool = ?1 and scope = ?2 limit 1
