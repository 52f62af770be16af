"""What runs amount to: statistics over seeds and tasks."""
