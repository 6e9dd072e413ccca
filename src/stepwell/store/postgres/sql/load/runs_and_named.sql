select {run} from run where no = any(array(
    select unnest($1::bigint[])
    union
    select r.no from unnest($2::text[], $3::text[]) as e (scope, id) join run as r on r.scope = e.scope and r.id = e.id
))
order by no for no key update
