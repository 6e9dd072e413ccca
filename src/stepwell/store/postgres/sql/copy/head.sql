select (select coalesce(max(no), 0) from change) + (select count(*) from unstamped)
