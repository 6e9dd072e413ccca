insert into run ({run}) select {run} from json_populate_recordset(null::run, $1::json)
