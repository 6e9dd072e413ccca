create table stepwell_backup (name text primary key, rows integer not null, sum text not null) strict, without rowid
