insert into task (no, {task}) select run_no << 20 | k, {task} from json_populate_recordset(null::task, $1::json)
