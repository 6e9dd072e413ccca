select name, rows, sum from stepwell_backup
