delete from pool where scope = ?1 and name = ?2
