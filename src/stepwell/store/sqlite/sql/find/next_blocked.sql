-- priority: as in next_group
select scope, pool, pool_key from task
where state = 'blocked' and (scope, pool, pool_key, priority) > (?1, ?2, ?3, 9223372036854775807)
order by scope, pool, pool_key limit 1
