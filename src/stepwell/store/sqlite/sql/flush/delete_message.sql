delete from message where no = ?1
