select count(*) from task where state = 'leased' and scope = $1 and pool = $2 and pool_key = $3
