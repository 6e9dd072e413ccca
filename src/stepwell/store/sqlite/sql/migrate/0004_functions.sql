-- The app's own migrations, and what a run calls at its end.
create table app_migration (
    app text not null,
    no integer not null,
    name text not null,
    hash text not null,
    at text not null,
    primary key (app, no)
) strict, without rowid;
alter table run add column callback text;

-- Callbacks wait for a process that has their function, and hold up nobody else's messages.
create index message_plain on message (no) where kind <> 'callback';
create index message_callback on message (key, no) where kind = 'callback';
