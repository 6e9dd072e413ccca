delete from event using json_to_recordset($1::json) as gone (scope text, name text) where event.scope = gone.scope and event.id = gone.name
