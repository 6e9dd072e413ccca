select {request} from request where (scope, key) in (select * from unnest($1::text[], $2::text[]))
order by scope, key for no key update
