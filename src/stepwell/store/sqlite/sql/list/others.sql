select coalesce(sum(n), 0) from lane where id not in (select value from json_each(?1))
