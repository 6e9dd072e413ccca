select {run} from run where no in (select value from json_each(?1))
