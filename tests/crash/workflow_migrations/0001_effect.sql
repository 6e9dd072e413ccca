-- Nothing here keeps a second row of one name out: a mutation that happens twice is to be seen.
create table effect (
    run text not null,
    name text not null,
    value text not null
);
