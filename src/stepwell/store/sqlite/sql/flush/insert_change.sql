insert into change (scope, pos, at, touched) values (?1, ?2, ?3, ?4)
