select 'run', coalesce(max(no), 0) from run
union all
select 'event', coalesce(max(no), 0) from event
union all
select 'message', coalesce(max(no), 0) from message
