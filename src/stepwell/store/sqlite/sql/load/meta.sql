select key, value from meta where key in (select value from json_each(?1))
