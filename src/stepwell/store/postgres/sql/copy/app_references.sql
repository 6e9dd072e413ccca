select distinct f.relname::text, t.relname::text
from pg_constraint k join pg_class f on f.oid = k.conrelid join pg_class t on t.oid = k.confrelid
where k.contype = 'f' and f.relnamespace = (select oid from pg_namespace where nspname = $1)
