"""Training runs: the loop, what it keeps, and what it shows."""
