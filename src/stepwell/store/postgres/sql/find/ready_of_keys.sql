-- Of each key $4 as many as it has free slots, $5; those whose runs another lane has do not count. A span and an order that
-- only the index of keys has: with a key that is one value, the index without keys looked as good while few were ready.
select t.no from unnest($4::text[], $5::bigint[]) as wanted (key, free) cross join lateral (
    select t.no, t.priority, t."order" from task as t join run as r on r.no = t.run_no
    where t.state = 'ready' and t.pool_key is not null and t.pool = $1 and t.requires = $2 and t.scope = $3
        and t.pool_key >= wanted.key and t.pool_key <= wanted.key
    order by t.pool_key, t.priority, t."order", t.no limit wanted.free
    for no key update of r skip locked
) as t
order by t.priority, t."order", t.no limit $6
