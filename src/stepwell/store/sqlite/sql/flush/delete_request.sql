delete from request where scope = ?1 and key = ?2
