-- Who looks at the server's connections can tell which schema's lane each of them is.
select set_config('application_name', $1 || ' ' || current_schema()::regnamespace::oid || ' ' || $2, false)
where current_setting('application_name') = $1
