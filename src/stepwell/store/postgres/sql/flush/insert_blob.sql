insert into blob ({blob}) select {blob} from json_populate_recordset(null::blob, $1::json) on conflict do nothing
