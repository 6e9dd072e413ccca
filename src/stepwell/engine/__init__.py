"""The engine: lanes that commit, roles that keep time, and the async object that everything else talks to."""
