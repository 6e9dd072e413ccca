delete from lane where at < any($1::bigint[])
