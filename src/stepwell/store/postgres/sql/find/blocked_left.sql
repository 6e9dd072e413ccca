-- Whether these (scope, pool, key) have blocked tasks besides some: other lanes have their runs.
select exists (
    select 1 from unnest($1::text[], $2::text[], $3::text[]) as wanted (scope, pool, key)
    cross join lateral (
        select 1 from task as t
        where t.state = 'blocked' and t.scope = wanted.scope and t.pool = wanted.pool and t.pool_key = wanted.key
            and t.no <> all($4::bigint[])
        limit 1
    ) as t
)
