select {task} from task
where deadline is not null and state <> 'done' and deadline <= ?1
order by deadline, no limit ?2
