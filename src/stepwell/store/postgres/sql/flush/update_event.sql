update event set {event=new.matched} from (
    select * from json_populate_recordset(null::event, $1::json) limit json_array_length($1::json)
) as new where event.no = new.no
