grant usage on schema $1 to $2;
grant select, insert, update, delete on all tables in schema $1 to $2;
grant usage, select on all sequences in schema $1 to $2
