"""Jumar: policy optimization in JAX."""
