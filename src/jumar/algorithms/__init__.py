"""Algorithms: the shared update, and each named method as a choice of its parts."""
