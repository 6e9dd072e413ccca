select {entry} from entry
where run_no = ?1 and kind in (select value from json_each(?2)) and (seq <= ?3 or kind = 'run.restarted')
order by seq
