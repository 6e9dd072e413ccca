select coalesce(max(pos), 0) - coalesce((select n from lane where id = ?1), 0) from change
