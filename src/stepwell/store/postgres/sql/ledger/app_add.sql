insert into app_migration values ($1, $2, $3, $4, now())
