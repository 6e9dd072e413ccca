-- The numbers of transactions are not in the order of their commits: the stamper makes up for that (docs/kernel.md).
insert into unstamped (xid, scope, at, touched)
select pg_current_xact_id()::text::bigint, scope, at, touched
from json_to_recordset($1::json) as given (scope text, at bigint, touched text)
