select a.attname::text, t.typname::text
from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_type t on t.oid = a.atttypid
where c.relnamespace = (select oid from pg_namespace where nspname = $1) and c.relname = $2 and a.attnum > 0
