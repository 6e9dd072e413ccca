delete from change where pos <= ?1
