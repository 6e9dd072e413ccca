-- Not virtual ones: what those are made of, their program knows.
select name from sqlite_schema where type = 'table' and sql not like 'create virtual%' and name <> 'stepwell_app_migration' order by name
