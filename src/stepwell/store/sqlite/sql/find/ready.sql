select {task} from task
where state = 'ready' and pool = ?1 and requires = ?2 and scope = ?3
order by priority, "order", no limit ?4
