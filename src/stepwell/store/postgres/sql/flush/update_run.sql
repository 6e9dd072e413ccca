update run set {run=new.generation} from (
    select * from json_populate_recordset(null::run, $1::json) limit json_array_length($1::json)
) as new where run.no = new.no
