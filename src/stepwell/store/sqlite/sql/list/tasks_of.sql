select {task} from task where no between ?1 << 20 and (?2 << 20 | 1048575) order by no
