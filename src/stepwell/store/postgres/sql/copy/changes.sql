-- With those that have no position yet: the ones that they would get now.
select no, scope, pos, at, touched from change
union all
select
    (select coalesce(max(no), 0) from change) + row_number() over (order by xid, scope),
    scope,
    coalesce(
        (select max(pos) from change where change.scope = unstamped.scope),
        (select value from meta where key = 'changes:' || unstamped.scope),
        0
    ) + row_number() over (partition by scope order by xid),
    at,
    touched
from unstamped
order by no
