select {pool} from pool where scope = $1 order by name
