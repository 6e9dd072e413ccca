insert or replace into pool ({pool}) values ({pool?})
