-- Events that a run's result sent: who sent them, and how long the chain is.
alter table run add column depth integer not null default 0;
alter table event add column cause text;
alter table event add column depth integer not null default 0;
