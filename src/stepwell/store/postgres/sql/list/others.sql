select coalesce(sum(n), 0)::bigint from lane where id <> all ($1::text[])
