select coalesce(max(pos), 0) from change where pos < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
