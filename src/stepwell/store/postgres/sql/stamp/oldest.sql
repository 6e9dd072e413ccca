-- Who holds the log back: the oldest transaction of the server that has a number, in whatever database.
select coalesce(format('process %s of database %s (%s)', pid, datname, nullif(application_name, '')), '')
from pg_stat_activity where backend_xid is not null order by age(backend_xid) desc limit 1
