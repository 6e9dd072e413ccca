create table receipt (order_id text not null, receipt text not null);
