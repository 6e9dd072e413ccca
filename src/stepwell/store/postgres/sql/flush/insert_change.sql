-- The number of the transaction is its position: a reader that stays below those under way misses none (docs/kernel.md).
insert into change (pos, at, touched)
select pg_current_xact_id()::text::bigint, at, touched from json_populate_recordset(null::change, $1::json)
