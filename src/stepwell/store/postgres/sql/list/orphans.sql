select 'entries of run ' || run_no from (select distinct run_no from entry) as written where run_no not in (select no from run)
union all
select 'task ' || run_no || '.' || k from task where run_no not in (select no from run)
union all
select 'output ' || run_no || '.' || n from output where run_no not in (select no from run)
union all
select 'blob ' || hash || ' of run ' || run_no from blob where event_no = 0 and run_no not in (select no from run)
union all
select 'blob ' || hash || ' of event ' || event_no from blob where event_no <> 0 and event_no not in (select no from event)
limit $1
