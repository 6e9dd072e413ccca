select {task} from task
where state = 'blocked' and scope = ?1 and pool = ?2 and pool_key = ?3
order by priority, "order", no limit ?4
