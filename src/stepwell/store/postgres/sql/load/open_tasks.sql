select {t.task} from unnest($1::bigint[]) as e (no) join task as t on t.no between e.no << 20 and (e.no << 20 | 1048575)
where t.state <> 'done'
