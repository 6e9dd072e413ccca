rollback to savepoint app
