"""Faults of the original that no test of a module proves: one file for each area of spec codex-flows 7."""
