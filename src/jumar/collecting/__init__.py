"""Collecting: policies act in environments, and runners make one iteration of it."""
