select {manifest} from manifest where scope = any($1::text[]) order by scope, name
