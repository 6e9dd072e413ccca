"""Tests of flow packages, with real files and real processes."""
