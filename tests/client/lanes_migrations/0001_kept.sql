create table kept (name text not null, n bigint not null);
