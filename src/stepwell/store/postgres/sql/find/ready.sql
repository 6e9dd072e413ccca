-- Of each (pool, requires, scope) so many from a place on; those whose runs another lane has do not count.
select t.no from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    as wanted (pool, requires, scope, most, priority, "order", no)
cross join lateral (
    select t.no from task as t join run as r on r.no = t.run_no
    where t.state = 'ready' and t.pool = wanted.pool and t.requires = wanted.requires and t.scope = wanted.scope
        and (t.priority, t."order", t.no) >= (wanted.priority, wanted."order", wanted.no)
    order by t.priority, t."order", t.no limit wanted.most
    for no key update of r skip locked
) as t
