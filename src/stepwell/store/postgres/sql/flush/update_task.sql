update task set {task=new.kind} from json_populate_recordset(null::task, $1::json) as new where task.no = (new.run_no << 20 | new.k)
