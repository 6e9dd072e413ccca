"""The seed's own tests and packages, against the product (source: spec codex-flows 8)."""
