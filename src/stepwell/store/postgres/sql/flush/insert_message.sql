insert into message (scope, to_no, from_no, from_seq, kind, key, at, data)
select scope, to_no, from_no, from_seq, kind, key, at, data from json_populate_recordset(null::message, $1::json)
