-- Not those that are computed.
select name from pragma_table_xinfo(?1) where hidden not in (2, 3) order by cid
