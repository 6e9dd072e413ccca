insert into pool ({pool}) select {pool} from json_populate_recordset(null::pool, $1::json)
on conflict (scope, name) do update set {pool=excluded.limit}
