release savepoint app
