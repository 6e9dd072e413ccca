select {task} from task where no = any($1::bigint[])
