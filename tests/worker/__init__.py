"""Tests of the worker in process, with real flow packages and real step processes."""
