select 1 from migration where no = ?1
