-- From one key to the next by the index, however many tasks each has.
with recursive found as (
    (select pool_key from task
    where state = 'ready' and pool_key is not null and pool = $1 and requires = $2 and scope = $3 and pool_key > $4
    order by pool_key limit 1)
    union all
    select n.pool_key from found as f cross join lateral (
        select pool_key from task
        where state = 'ready' and pool_key is not null
            and pool = $1 and requires = $2 and scope = $3 and pool_key > f.pool_key
        order by pool_key limit 1
    ) as n
)
select pool_key from found limit $5
