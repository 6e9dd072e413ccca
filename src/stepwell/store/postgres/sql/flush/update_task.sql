update task set {task=new.kind} from (
    select * from json_populate_recordset(null::task, $1::json) limit json_array_length($1::json)
) as new where task.no = (new.run_no << 20 | new.k)
