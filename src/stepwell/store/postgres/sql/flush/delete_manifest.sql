delete from manifest using json_to_recordset($1::json) as gone (scope text, name text) where manifest.scope = gone.scope and manifest.name = gone.name
