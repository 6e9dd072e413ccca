delete from task using unnest($1::bigint[]) as e (no) where task.no between e.no << 20 and (e.no << 20 | 1048575)
