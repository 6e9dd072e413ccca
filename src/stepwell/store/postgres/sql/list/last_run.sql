select max(no) from run
