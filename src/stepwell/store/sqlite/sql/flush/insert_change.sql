-- All of a scope's rows may have been pruned: then it goes on where its floor is.
insert into change (scope, pos, at, touched)
select ?1, coalesce((select max(pos) from change where scope = ?1), (select value from meta where key = 'changes:' || ?1), 0) + 1, ?2, ?3
