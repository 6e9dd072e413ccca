-- Who holds the log back: the oldest transaction of the server that has a number, in whatever database.
select told from (
    select age(backend_xid) as age,
        format('process %s of database %s (%s)', pid, datname, coalesce(nullif(application_name, ''), 'no name')) as told
    from pg_stat_activity where backend_xid is not null
    union all
    select age(transaction), format('the prepared transaction %s of database %s', gid, database) from pg_prepared_xacts
) as writing
order by age desc
limit 1
