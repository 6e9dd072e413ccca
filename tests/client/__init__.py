"""What the tests of clients share."""
