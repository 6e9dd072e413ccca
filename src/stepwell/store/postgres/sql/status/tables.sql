-- Of the kernel's schema and of the app's beside it.
select
    case when s.nspname = current_schema() then c.relname else s.nspname || '.' || c.relname end::text,
    case when c.reltuples < 0 then null else c.reltuples::bigint end,
    pg_total_relation_size(c.oid),
    pg_stat_get_dead_tuples(c.oid)
from pg_class c join pg_namespace s on s.oid = c.relnamespace
where c.relkind = 'r' and s.nspname in (current_schema(), current_schema() || '_app')
order by s.nspname <> current_schema(), c.relname
