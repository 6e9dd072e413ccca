create table if not exists migration (no integer primary key, name text, hash text, at text) strict
