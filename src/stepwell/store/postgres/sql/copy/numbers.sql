select 'run', last_value - (not is_called)::int from run_no
union all
select 'event', last_value - (not is_called)::int from event_no
union all
select 'message', last_value - (not is_called)::int from message_no_seq
