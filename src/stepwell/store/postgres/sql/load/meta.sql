select key, value from meta where key = any($1::text[])
