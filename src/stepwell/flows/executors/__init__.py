"""Ways to start a step's process."""
