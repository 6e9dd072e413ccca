delete from change where no <= any($1::bigint[])
