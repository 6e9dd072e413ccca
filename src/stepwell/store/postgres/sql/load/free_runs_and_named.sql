-- True: they are ours now. False: another lane has them.
with named as materialized (
    select unnest($1::bigint[]) as no
    union
    select r.no from unnest($2::text[], $3::text[]) as e (scope, id) join run as r on r.scope = e.scope and r.id = e.id
), taken as (
    select {run} from run where no = any(array(select no from named)) order by no for no key update skip locked
)
select true, {run} from taken
union all
select false, {run} from run where no = any(array(select no from named)) and no not in (select no from taken)
