insert into migration values ($1, $2, $3, now())
