create table if not exists migration (no integer primary key, name text not null, hash text not null, at timestamptz not null)
