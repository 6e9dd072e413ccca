select min(due_at) from task where state = 'due'
