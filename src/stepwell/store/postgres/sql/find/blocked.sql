select t.no from task as t join run as r on r.no = t.run_no
where t.state = 'blocked' and t.scope = $1 and t.pool = $2 and t.pool_key = $3
order by t.priority, t."order", t.no limit $4
for no key update of r skip locked
