-- From one group to the next by the index, however many tasks each has. $4: the pool, or '' for all.
with recursive found as (
    (select pool, requires, scope from task
    where state = 'ready' and (pool, requires, scope) > ($1, $2, $3) and ($4 = '' or pool = $4)
    order by pool, requires, scope limit 1)
    union all
    select n.pool, n.requires, n.scope from found as f cross join lateral (
        select pool, requires, scope from task
        where state = 'ready' and (pool, requires, scope) > (f.pool, f.requires, f.scope) and ($4 = '' or pool = $4)
        order by pool, requires, scope limit 1
    ) as n
)
select pool, requires, scope from found limit $5
