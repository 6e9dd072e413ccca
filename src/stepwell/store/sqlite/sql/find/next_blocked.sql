select scope, pool, pool_key from task
where state = 'blocked' and (scope, pool, pool_key) > (?1, ?2, ?3)
order by scope, pool, pool_key limit 1
