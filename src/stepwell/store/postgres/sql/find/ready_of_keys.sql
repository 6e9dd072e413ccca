-- Of each key $4 as many as it has free slots, $5.
select t.no from unnest($4::text[], $5::bigint[]) as wanted (key, free) cross join lateral (
    select no, run_no, priority, "order" from task
    where state = 'ready' and pool_key is not null
        and pool = $1 and requires = $2 and scope = $3 and pool_key = wanted.key collate "C"
    order by priority, "order", no limit wanted.free
) as t join run as r on r.no = t.run_no
order by t.priority, t."order", t.no limit $6
for no key update of r skip locked
