create table stepwell_app_migration (app text not null, no integer not null, primary key (app, no)) strict, without rowid
