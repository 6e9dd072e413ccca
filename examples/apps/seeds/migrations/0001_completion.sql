-- What nested.py was told of runs that ended.
create table completion (told text not null) strict;
