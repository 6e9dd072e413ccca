select {run} from run where no = any($1::bigint[]) order by no for no key update skip locked
