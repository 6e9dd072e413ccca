select 'task.' || state, count(*) from task where state <> 'done' group by state
