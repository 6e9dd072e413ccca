select pool, requires, scope from task
where state = 'ready' and (pool, requires, scope) > (?1, ?2, ?3)
order by pool, requires, scope limit 1
