-- Who notifies holds a lock of the whole server until its commit is done: this one need not wait for the disk.
select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)
