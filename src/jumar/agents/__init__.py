"""Agents: what users hold from Python, and policies that act."""
