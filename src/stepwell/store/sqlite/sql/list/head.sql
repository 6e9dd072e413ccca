-- All of a scope's rows may have been pruned: then its head is its floor.
select coalesce((select max(pos) from change where scope = ?1), (select value from meta where key = 'changes:' || ?1), 0)
