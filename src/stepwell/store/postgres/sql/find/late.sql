select t.no from task as t join run as r on r.no = t.run_no
where t.deadline is not null and t.state <> 'done' and t.deadline <= $1
order by t.deadline, t.no limit $2
for no key update of r skip locked
