-- True: they are ours now. False: another lane has them.
with taken as (
    select {run} from run where no = any($1::bigint[]) order by no for no key update skip locked
)
select true, {run} from taken
union all
select false, {run} from run where no = any($1::bigint[]) and no not in (select no from taken)
