select {run} from run where no > $1 order by no limit $2
