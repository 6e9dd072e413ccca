"""Stepwell measured next to the raw floor of the same rows, in one run on one machine. See docs/performance.md."""
