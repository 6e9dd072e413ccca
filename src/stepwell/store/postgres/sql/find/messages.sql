select {message} from message
where to_no = any($3::bigint[]) and (kind <> 'callback' or key = any($2::text[]))
order by no limit $1
