"""Drills: faults brought about on purpose, on the machine where Jumar is installed, to see that nothing is lost.

A *drill* brings about one kind of fault, so many *tries*, and says of each what happened: it *survived*, or something was
*lost*. ``python -m jumar.drills`` runs all of them and writes a table. What a drill does and what surviving means stands at
its registration, in :mod:`jumar.drills.faults`.
"""
