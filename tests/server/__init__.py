"""Tests of the HTTP server, as a process that is started, talked to, killed and told to end."""
