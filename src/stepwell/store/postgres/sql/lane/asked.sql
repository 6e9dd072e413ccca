-- An insert, so that it waits for one that may still be under way, even that of the lane's first commit.
insert into lane (id, n, at) values ($1, 0, (extract(epoch from clock_timestamp()) * 1000)::bigint)
on conflict (id) do update set n = lane.n
returning n
