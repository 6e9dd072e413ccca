insert or replace into manifest ({manifest}) values ({manifest?})
