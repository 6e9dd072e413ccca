update run set {run=head_seq} where no = ?1
