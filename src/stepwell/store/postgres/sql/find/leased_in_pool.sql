select count(*) from task where state = 'leased' and scope = $1 and pool = $2
