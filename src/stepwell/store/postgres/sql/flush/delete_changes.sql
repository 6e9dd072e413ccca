delete from change where pos <= any($1::bigint[])
