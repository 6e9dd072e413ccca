select n from lane where id = ?1
