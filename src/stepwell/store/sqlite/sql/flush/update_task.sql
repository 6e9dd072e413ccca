update task set {task=kind} where no = ?1
