"""Verification: every shipped method and part against an exact oracle, on the machine where it is installed.

A *check* runs shipped code on a problem whose answer is known, and gives one number, most often the largest deviation from
that answer, which must be at most its bound. ``jumar verify`` runs all checks and prints them as a table.
"""
