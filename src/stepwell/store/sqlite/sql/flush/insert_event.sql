insert into event ({event}) values ({event?})
