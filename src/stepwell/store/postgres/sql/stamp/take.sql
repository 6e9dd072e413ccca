-- The stamper's row, for whoever may have the duty now. Nobody waits for it: somebody else is at it then.
select xid from stamper where (holder = $1 or until < (extract(epoch from clock_timestamp()) * 1000)::bigint) for update skip locked
