-- What is below the oldest transaction under way ($2: null) is all there will ever be there. So a change's position is its
-- rank among the transactions of its scope, whoever counts, and however often: done again, it comes out the same.
-- $1: up to where it was done.
with last as (
    select coalesce(max(xid), $1) as xid
    from (
        select xid from unstamped
        where xid > $1 and xid < coalesce($2::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
        order by xid
        limit $3
    ) as page
),
moved as (
    delete from unstamped using last where unstamped.xid > $1 and unstamped.xid <= last.xid
    returning unstamped.xid, scope, at, touched
),
head as (
    select scope, coalesce(
        (select max(pos) from change where change.scope = fresh.scope),
        (select value from meta where key = 'changes:' || fresh.scope),
        0
    ) as pos
    from (select distinct scope from moved) as fresh
),
numbered as (
    select xid, scope, head.pos + row_number() over (partition by scope order by xid) as pos, at, touched
    from moved join head using (scope)
),
stamped as (
    insert into change (scope, pos, at, touched) select scope, pos, at, touched from numbered order by xid, scope
)
update stamper set xid = last.xid, holder = $4, until = (extract(epoch from clock_timestamp()) * 1000)::bigint + $5
from last
returning
    (select count(*) from moved),
    (select (extract(epoch from clock_timestamp()) * 1000)::bigint - at from unstamped where unstamped.xid > last.xid order by unstamped.xid limit 1)
