select {run} from run where no = $1
