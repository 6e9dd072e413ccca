"""The PostgreSQL store: many lanes on many machines, each with its own connection (source: KERNEL)."""
