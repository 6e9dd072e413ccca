-- Who the oldest messages are for, as far as no other lane has them under its hands.
select no from run where no in (
    (select to_no from message where kind <> 'callback' order by no limit $1)
    union
    (select to_no from message where kind = 'callback' and key = any($2::text[]) order by no limit $1)
)
order by no for no key update skip locked
