-- No transaction of this server has such a number yet: so the rows come from another one, by a dump or a copy.
select greatest(stamper.xid, (select max(xid) from unstamped)) >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
from stamper
