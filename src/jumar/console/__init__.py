"""The console: what a person sees of a run, and how they stop it."""
