-- What is emptied all the time keeps its pages: to give them back, a vacuum takes the table from all others for a moment.
alter table message set (vacuum_truncate = off);
alter table unstamped set (vacuum_truncate = off);
