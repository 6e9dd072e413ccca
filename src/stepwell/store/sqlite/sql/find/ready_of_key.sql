select {task} from task
where state = 'ready' and pool_key is not null and pool = ?1 and requires = ?2 and scope = ?3 and pool_key = ?4
order by priority, "order", no limit ?5
