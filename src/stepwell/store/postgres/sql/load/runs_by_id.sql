select {r.run} from unnest($1::text[], $2::text[]) as e (scope, id) join run as r on r.scope = e.scope and r.id = e.id
