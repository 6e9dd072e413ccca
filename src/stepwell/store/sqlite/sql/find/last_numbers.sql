select name, seq from sqlite_sequence where name in ('run', 'event')
