select coalesce((select max(pos) from change where scope = ?1), (select value from meta where key = 'changes:' || ?1), 0)
