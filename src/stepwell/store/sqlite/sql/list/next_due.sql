select min(at) from (
    select min(due_at) as at from task where state = 'due'
    union all
    select min(lease_until) + 1 from task where state = 'leased'
)
