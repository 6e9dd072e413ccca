-- What was done for an order, a row each.
create table booking (
    order_id text not null,
    what text not null
) strict;
create index booking_order on booking (order_id);
