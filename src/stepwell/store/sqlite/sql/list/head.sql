select coalesce(max(pos), 0) from change
