insert into stepwell_app_migration values (?1, ?2)
