"""XLA: how it compiles, what it keeps, and how long it takes."""
