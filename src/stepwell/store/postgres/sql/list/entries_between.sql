-- Parts of journals, one after the other: of run $1 what lies between $2 and $3.
select {r.entry}, part.i
from unnest($1::bigint[], $2::bigint[], $3::bigint[]) with ordinality as part (run_no, after, until, i)
join entry as r on r.run_no = part.run_no and r.seq > part.after and r.seq < part.until
order by part.i, r.seq
