insert into manifest ({manifest}) select {manifest} from json_populate_recordset(null::manifest, $1::json)
on conflict (scope, name) do update set {manifest=excluded.version}
