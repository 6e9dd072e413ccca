update run set {run=status} where no = ?1
