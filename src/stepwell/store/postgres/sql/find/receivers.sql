-- Who the oldest messages are for, but for some ($3), and whether they can have them: not those that another lane has
-- under its hands.
with wanted as materialized (
    (select to_no from message where kind <> 'callback' and to_no <> all($3::bigint[]) order by no limit $1)
    union
    (select to_no from message where kind = 'callback' and key = any($2::text[]) and to_no <> all($3::bigint[])
        order by no limit $1)
), locked as (
    select no from run where no = any(array(select to_no from wanted)) order by no for no key update skip locked
)
select to_no, to_no in (select no from locked) or not exists (select 1 from run as r where r.no = w.to_no)
from wanted as w
