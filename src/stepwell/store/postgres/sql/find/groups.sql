-- From one group to the next by the index, however many tasks each has, with its first task. $4: the pool, or '' for all;
-- asked of what was found, since a condition on the pool alone would have the index walk through the group that was left.
with recursive found as (
    select * from (
        select pool, requires, scope, priority, "order", no from task
        where state = 'ready' and (pool, requires, scope) > ($1, $2, $3)
        order by pool, requires, scope, priority, "order", no limit 1
    ) as n where $4 = '' or n.pool = $4
    union all
    select n.* from found as f cross join lateral (
        select pool, requires, scope, priority, "order", no from task
        where state = 'ready' and (pool, requires, scope) > (f.pool, f.requires, f.scope)
        order by pool, requires, scope, priority, "order", no limit 1
    ) as n where $4 = '' or n.pool = $4
)
select pool, requires, scope, priority, "order", no from found limit $5
