"""Training: from what the user asked for to a run under way, and the commands around it."""
