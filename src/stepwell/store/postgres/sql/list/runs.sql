select {run} from run where /* tests */ order by no desc limit $1
