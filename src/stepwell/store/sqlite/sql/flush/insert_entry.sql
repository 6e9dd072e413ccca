insert into entry ({entry}) values ({entry?})
