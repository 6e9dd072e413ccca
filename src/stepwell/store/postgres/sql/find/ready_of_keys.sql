-- Of each key $4 as many as it has free slots, $5; those whose runs another lane has do not count. By the index of keys,
-- whose expression no other has.
select t.no from unnest($4::text[], $5::bigint[]) as wanted (key, free) cross join lateral (
    select t.no, t.priority, t."order" from task as t join run as r on r.no = t.run_no
    where case when t.state = 'ready' then t.pool_key end = wanted.key
        and t.pool = $1 and t.requires = $2 and t.scope = $3
    order by t.priority, t."order", t.no limit wanted.free
    for no key update of r skip locked
) as t
order by t.priority, t."order", t.no limit $6
