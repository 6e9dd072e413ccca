-- From one key to the next by the index, however many tasks each has. The expression is the index's alone. And how many
-- tasks of each are leased.
with recursive found as (
    (select case when state = 'ready' then pool_key end as key from task
    where case when state = 'ready' then pool_key end > $4 and pool = $1 and requires = $2 and scope = $3
    order by case when state = 'ready' then pool_key end limit 1)
    union all
    select n.key from found as f cross join lateral (
        select case when state = 'ready' then pool_key end as key from task
        where case when state = 'ready' then pool_key end > f.key and pool = $1 and requires = $2 and scope = $3
        order by case when state = 'ready' then pool_key end limit 1
    ) as n
)
select f.key, (
    select count(*) from task as t
    where t.state = 'leased' and t.scope = $3 and t.pool = $1 and t.pool_key = f.key
)
from found as f limit $5
