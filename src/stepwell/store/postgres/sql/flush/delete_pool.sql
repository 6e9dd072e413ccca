delete from pool using json_to_recordset($1::json) as gone (scope text, name text) where pool.scope = gone.scope and pool.name = gone.name
