insert or replace into meta (key, value) select 'changes:' || scope, max(pos) from change where no <= ?1 group by scope
