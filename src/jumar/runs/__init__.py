"""Runs as they are kept: files, checkpoints, logs and the directories that they lie in."""
