insert into entry ({entry}) select {entry} from json_populate_recordset(null::entry, $1::json)
