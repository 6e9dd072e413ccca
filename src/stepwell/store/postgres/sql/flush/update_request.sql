update request set {request=new.body_hash} from (
    select * from json_populate_recordset(null::request, $1::json) limit json_array_length($1::json)
) as new where request.scope = new.scope and request.key = new.key
