"""What users of other orchestrators expect: each test has the number of its row in docs/orchestrator.md."""
