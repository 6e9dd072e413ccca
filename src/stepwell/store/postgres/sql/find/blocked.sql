-- Of each (scope, pool, key) so many; those whose runs another lane has do not count.
select t.no from unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as wanted (scope, pool, key, most)
cross join lateral (
    select t.no from task as t join run as r on r.no = t.run_no
    where t.state = 'blocked' and t.scope = wanted.scope and t.pool = wanted.pool and t.pool_key = wanted.key
    order by t.priority, t."order", t.no limit wanted.most
    for no key update of r skip locked
) as t
