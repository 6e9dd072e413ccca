delete from manifest where scope = ?1 and name = ?2
