select {pool} from pool where (scope, name) in (select * from unnest($1::text[], $2::text[]))
order by scope, name for no key update
