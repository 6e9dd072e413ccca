select data from blob where run_no = $1 and event_no = $2 and hash = $3
