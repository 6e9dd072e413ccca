delete from change where no <= ?1
