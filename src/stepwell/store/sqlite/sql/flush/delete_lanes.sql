delete from lane where at < ?1
