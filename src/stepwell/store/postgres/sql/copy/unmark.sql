delete from migration where no = $1
