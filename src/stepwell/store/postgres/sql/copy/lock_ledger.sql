-- Servers that start read the ledger all the same, and are told.
lock table migration in exclusive mode nowait
