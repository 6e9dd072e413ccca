"""The rules of Stepwell: `decide(unit, command, now)` over rows in memory. No I/O, no clock, no randomness."""
