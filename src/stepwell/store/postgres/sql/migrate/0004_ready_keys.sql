-- By an expression that only this index has: without statistics the index of all that is ready looked as good, and a look
-- for the keys of a pool read every task that waits there.
drop index task_ready_key;
create index task_ready_key
on task (pool, requires, scope, (case when state = 'ready' then pool_key end), priority, "order", no)
where (case when state = 'ready' then pool_key end) is not null;
