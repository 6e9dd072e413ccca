insert into meta (key, value)
select 'changes:' || scope, max(pos) from change where no <= any($1::bigint[]) group by scope order by scope
on conflict (key) do update set value = greatest(meta.value, excluded.value)
