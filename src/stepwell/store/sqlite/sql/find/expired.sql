select {task} from task where state = 'leased' and lease_until < ?1 order by lease_until, no limit ?2
