update event set {event=new.matched} from json_populate_recordset(null::event, $1::json) as new where event.no = new.no
