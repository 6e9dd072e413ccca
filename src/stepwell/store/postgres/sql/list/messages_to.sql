select distinct to_no from message where to_no = any($1::bigint[])
