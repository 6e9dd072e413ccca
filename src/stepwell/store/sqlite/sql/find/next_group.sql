-- priority: SQLite goes to the first row that is not less; without a column more it walks through the whole last group
select pool, requires, scope from task
where state = 'ready' and (pool, requires, scope, priority) > (?1, ?2, ?3, 9223372036854775807)
order by pool, requires, scope limit 1
