"""Environments: one convention for every backend."""
