-- Goes through all leases there are, never through what is parked: it is asked when a worker has died, and an index by
-- worker would be written at each claim.
select t.no from task as t join run as r on r.no = t.run_no
where t.state = 'leased' and t.worker = $1 and t.kind <> 'step'
order by t.lease_until, t.no limit $2
for no key update of r skip locked
