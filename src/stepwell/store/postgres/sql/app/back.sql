rollback to savepoint app;
release savepoint app
