insert into request ({request}) select {request} from json_populate_recordset(null::request, $1::json)
