select {e.event} from event as e
where e.no = any($2::bigint[]) and e.created_at < $1 and not exists (
    select 1 from run as r
    where r.event_no = e.no and r.event_no is not null and r.no <> all($3::bigint[])
)
order by e.no for no key update skip locked
