insert into meta (key, value) select key, value from json_populate_recordset(null::meta, $1::json)
on conflict (key) do update set value = greatest(meta.value, excluded.value)
