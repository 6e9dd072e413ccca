select {task} from task where no between $1::bigint << 20 and ($2::bigint << 20 | 1048575) order by no
