rollback to savepoint app_statement
