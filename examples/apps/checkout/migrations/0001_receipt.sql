-- What was paid for an order.
create table receipt (
    order_id text not null,
    receipt text not null
);
create index receipt_order on receipt (order_id);
