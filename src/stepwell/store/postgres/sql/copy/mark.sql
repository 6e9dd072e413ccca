insert into migration (no, name, hash, at) values ($1, $2, '', now()) on conflict (no) do update set name = excluded.name, at = excluded.at
