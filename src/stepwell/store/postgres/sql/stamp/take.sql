-- The stamper's row, for whoever may have the duty now. Nobody waits for it: somebody else is at it then. One that
-- ends later than it could if it began now was taken by another clock, as that of a server that was failed over from.
select xid from stamper cross join (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) as clock
where holder = $1 or until < now or until > now + $2
for update of stamper skip locked
