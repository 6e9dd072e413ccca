-- Positions are dense in each scope. Nobody has read the log so far, so it begins anew.
drop table change;

-- no: the order of the commits, for the pruning.
create table change (
    no integer primary key,
    scope text not null,
    pos integer not null,
    at integer not null,
    touched text not null
) strict;
create unique index change_pos on change (scope, pos);
