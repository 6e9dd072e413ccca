update run set {run=generation} where no = ?1
