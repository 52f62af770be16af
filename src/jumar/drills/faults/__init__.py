"""The drills, in a module for each group. A function's registration says what it does and what surviving means."""
