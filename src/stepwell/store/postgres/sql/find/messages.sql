select {m.message} from message as m
where (m.kind <> 'callback' or m.key = any($2::text[]))
    and (m.to_no = any($3::bigint[]) or not exists (select 1 from run as r where r.no = m.to_no))
order by m.no limit $1
