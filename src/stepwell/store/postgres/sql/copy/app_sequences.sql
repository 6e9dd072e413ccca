select c.relname::text, a.attname::text, s.sequence
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped,
    lateral (select pg_get_serial_sequence(format('%I.%I', $1::text, c.relname), a.attname) as sequence) s
where c.relnamespace = (select oid from pg_namespace where nspname = $1) and c.relkind in ('r', 'p') and s.sequence is not null
