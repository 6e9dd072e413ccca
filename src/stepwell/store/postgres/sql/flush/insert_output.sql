insert into output ({output}) select {output} from json_populate_recordset(null::output, $1::json)
