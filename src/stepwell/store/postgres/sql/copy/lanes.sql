select application_name from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
    and application_name like 'stepwell ' || current_schema()::regnamespace::oid || ' %'
