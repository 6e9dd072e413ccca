insert into run ({run}) values ({run?})
