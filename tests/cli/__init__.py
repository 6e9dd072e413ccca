"""Tests of the command line, as a process that people and scripts start."""
