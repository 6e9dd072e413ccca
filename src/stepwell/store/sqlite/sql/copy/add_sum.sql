insert into stepwell_backup values (?1, ?2, ?3)
