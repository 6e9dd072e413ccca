insert into change (at, touched) values (?1, ?2)
