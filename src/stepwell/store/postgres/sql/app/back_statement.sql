rollback to savepoint app_statement;
release savepoint app_statement
