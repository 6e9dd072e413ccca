select {entry} from entry
where run_no = $1 and kind = any($2::text[]) and (seq <= $3 or kind = 'run.restarted')
order by seq
