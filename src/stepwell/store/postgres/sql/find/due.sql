select t.no from task as t join run as r on r.no = t.run_no
where t.state = 'due' and t.due_at <= $1
order by t.due_at, t.no limit $2
for no key update of r skip locked
