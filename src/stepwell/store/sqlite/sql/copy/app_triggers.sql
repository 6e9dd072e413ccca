select name, sql from sqlite_schema where type = 'trigger'
