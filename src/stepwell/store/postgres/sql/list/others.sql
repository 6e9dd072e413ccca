select coalesce(sum(n), 0)::bigint from lane where id <> $1
