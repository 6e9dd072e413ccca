select {change} from change where pos > $1 and pos < pg_snapshot_xmin(pg_current_snapshot())::text::bigint order by pos limit $2
