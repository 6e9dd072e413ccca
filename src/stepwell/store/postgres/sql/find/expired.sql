select t.no from task as t join run as r on r.no = t.run_no
where t.state = 'leased' and t.lease_until < $1
order by t.lease_until, t.no limit $2
for no key update of r skip locked
