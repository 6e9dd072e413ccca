select
    format('process %s of %s (%s)', pid, coalesce(application_name, backend_type), coalesce(state, 'no state')),
    greatest((extract(epoch from clock_timestamp() - xact_start) * 1000)::bigint, 0)
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_xmin is not null and xact_start is not null
order by xact_start limit 1
