-- Limits of an action's attempts, and its deadline over all of them.
alter table task add column timeout_ms integer;
alter table task add column heartbeat_ms integer;
alter table task add column deadline integer;
create index task_deadline on task (deadline) where deadline is not null and state <> 'done';

-- The values that workflows show, and the restarts that take some of them back.
create index entry_state on entry (run_no, seq) where kind in ('state.set', 'run.restarted');
