insert into event ({event}) select {event} from json_populate_recordset(null::event, $1::json)
