select coalesce(pg_sequence_last_value($1::regclass), 0)
