delete from run where no = ?1
