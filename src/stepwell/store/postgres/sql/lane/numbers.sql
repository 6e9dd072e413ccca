select nextval($1::regclass) from generate_series(1, $2)
