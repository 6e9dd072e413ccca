select {task} from task where state = 'due' and due_at <= ?1 order by due_at, no limit ?2
