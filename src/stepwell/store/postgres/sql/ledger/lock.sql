lock table migration in exclusive mode
