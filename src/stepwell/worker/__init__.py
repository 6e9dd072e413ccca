"""Workers: they claim tasks, run them, extend their leases, and hand back what they cannot finish."""
