select {run} from run where no = any($1::bigint[])
