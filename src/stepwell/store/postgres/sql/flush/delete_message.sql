delete from message where no = any($1::bigint[])
