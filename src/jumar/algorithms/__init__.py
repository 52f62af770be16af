"""Algorithms: what an update is, its settings, and each named method as a choice of parts."""
