insert or replace into request ({request}) values ({request?})
