select {entry} from entry
where run_no = $1 and kind in ('state.set', 'run.restarted')
order by seq desc
