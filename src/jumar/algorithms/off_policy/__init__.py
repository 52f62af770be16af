"""Methods that replay what they did earlier."""
