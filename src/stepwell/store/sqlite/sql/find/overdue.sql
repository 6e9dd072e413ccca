select {run} from run where no in (
    select no from run where deadline is not null and ended_at is null and deadline <= ?1
    union
    select no from run where cancel_at is not null and ended_at is null
) order by no limit ?2
