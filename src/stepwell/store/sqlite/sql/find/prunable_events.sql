select {e.event} from json_each(?2) as n join event as e on e.no = n.value
where e.created_at < ?1 and not exists (
    select 1 from run as r
    where r.event_no = e.no and r.event_no is not null and r.no not in (select value from json_each(?3))
)
group by e.no
