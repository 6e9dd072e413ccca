-- Those of the (scope, pool, key) that have blocked tasks besides some.
select wanted.scope, wanted.pool, wanted.key
from unnest($1::text[], $2::text[], $3::text[]) with ordinality as wanted (scope, pool, key, i)
cross join lateral (
    select 1 from task as t
    where t.state = 'blocked' and t.scope = wanted.scope and t.pool = wanted.pool and t.pool_key = wanted.key
        and t.no <> all($4::bigint[])
    limit 1
) as t
order by wanted.i
