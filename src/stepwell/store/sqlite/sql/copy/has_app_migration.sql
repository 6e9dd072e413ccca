select 1 from sqlite_schema where name = 'stepwell_app_migration'
