delete from run where no = any($1::bigint[])
