savepoint app
