"""Verification: training methods and their parts compared with exact results, on the machine where Jumar is installed.

A *check* runs shipped code on a problem whose answer is known, and gives one number, most often the largest deviation from
that answer, which must be at most its bound. ``jumar verify`` runs all checks and prints them as a table.
"""
