insert into lane (id, n, at) values (?1, 1, ?2)
on conflict (id) do update set n = n + 1, at = ?2
returning n
