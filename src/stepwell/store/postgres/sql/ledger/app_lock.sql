lock table app_migration in exclusive mode
