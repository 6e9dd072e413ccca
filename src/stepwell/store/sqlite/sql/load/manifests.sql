select {manifest} from manifest where scope in (select value from json_each(?1)) order by scope, name
