select (select min(no) from change), (select max(no) from change)
