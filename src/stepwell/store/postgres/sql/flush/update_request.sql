update request set {request=new.body_hash} from json_populate_recordset(null::request, $1::json) as new where request.scope = new.scope and request.key = new.key
