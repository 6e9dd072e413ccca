select {run} from run where scope = $1 and id = $2
