select t.no from task as t join run as r on r.no = t.run_no
where t.state = 'ready' and t.pool = $1 and t.requires = $2 and t.scope = $3
order by t.priority, t."order", t.no limit $4
for no key update of r skip locked
