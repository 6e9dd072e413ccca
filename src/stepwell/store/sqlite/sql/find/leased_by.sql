select {task} from task
where state = 'leased' and worker = ?1 and kind <> 'step'
order by lease_until, no limit ?2
