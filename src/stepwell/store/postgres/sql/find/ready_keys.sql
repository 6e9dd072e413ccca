-- From one key to the next by the index, however many tasks each has. The expression is the index's alone.
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
select key from found limit $5
