"""Experience: the rollouts that an update learns from, and the scale of their rewards."""
