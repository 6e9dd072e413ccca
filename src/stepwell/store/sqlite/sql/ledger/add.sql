insert into migration values (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%SZ'))
