select coalesce(max(pos), 0) - (select coalesce(sum(n), 0) from lane where id in (select value from json_each(?1))) from change
