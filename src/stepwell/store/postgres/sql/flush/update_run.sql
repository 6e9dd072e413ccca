update run set {run=new.generation} from json_populate_recordset(null::run, $1::json) as new where run.no = new.no
