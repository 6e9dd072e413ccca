insert into message (scope, to_no, from_no, from_seq, kind, key, at, data) values (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
