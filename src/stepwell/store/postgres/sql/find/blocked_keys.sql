with recursive found as (
    (select scope, pool, pool_key from task
    where state = 'blocked' and (scope, pool, pool_key) > ($1, $2, $3)
    order by scope, pool, pool_key limit 1)
    union all
    select n.scope, n.pool, n.pool_key from found as f cross join lateral (
        select scope, pool, pool_key from task
        where state = 'blocked' and (scope, pool, pool_key) > (f.scope, f.pool, f.pool_key)
        order by scope, pool, pool_key limit 1
    ) as n
)
select scope, pool, pool_key from found limit $4
