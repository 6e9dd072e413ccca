-- One for each schema: a notification goes to one database.
select 'stepwell_' || md5(current_schema())
