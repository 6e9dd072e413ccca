insert into lane (id, n, at) values ($1, 1, (extract(epoch from clock_timestamp()) * 1000)::bigint)
on conflict (id) do update set n = lane.n + 1, at = excluded.at
returning n, (extract(epoch from clock_timestamp()) * 1000)::bigint
