select {p.pool} from (select * from unnest($1::text[], $2::text[]) as e (scope, name) order by scope, name) as e
cross join lateral (select * from pool where pool.scope = e.scope and pool.name = e.name for no key update) as p
