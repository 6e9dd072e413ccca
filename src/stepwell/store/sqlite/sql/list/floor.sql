select coalesce((select value from meta where key = 'changes:' || ?1), 0)
