delete from blob where run_no = 0 and event_no in (
    select event.no from json_to_recordset($1::json) as gone (scope text, name text) join event on event.scope = gone.scope and event.id = gone.name
)
