select (select min(pos) from change), (select max(pos) from change)
