select {manifest} from manifest where scope = $1 order by name
