select {task} from task where no in (select value from json_each(?1))
