delete from request using json_to_recordset($1::json) as gone (scope text, name text) where request.scope = gone.scope and request.key = gone.name
