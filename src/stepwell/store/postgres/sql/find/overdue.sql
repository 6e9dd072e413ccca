select r.no from run as r where r.no = any(array(
    select no from run where deadline is not null and ended_at is null and deadline <= $1
    union
    select r.no from run as r join task as t on t.no = (r.no << 20 | r.turn)
    where r.cancel_at is not null and r.ended_at is null and r.cancel_at <= $2
        and case when t.state = 'leased' then t.leased_at <= $2
            when t.state = 'parked' or t.due_key is not null then r.updated_at <= $2 end
)) order by r.no limit $3
for no key update skip locked
