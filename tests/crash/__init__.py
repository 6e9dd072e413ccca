"""Tests that kill, freeze and starve real processes, and look at what is left."""
