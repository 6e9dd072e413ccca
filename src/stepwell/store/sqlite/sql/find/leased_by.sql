-- Goes through all leases there are, never through what is parked: it is asked when a worker has died, and an index by
-- worker would be written at each claim.
select {task} from task
where state = 'leased' and worker = ?1 and kind <> 'step'
order by lease_until, no limit ?2
