select {e.event} from event as e
where e.created_at < ?1 and not exists (select 1 from run as r where r.event_no = e.no and r.event_no is not null)
order by e.created_at, e.no limit ?2
