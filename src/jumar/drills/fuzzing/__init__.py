"""Fuzzing: every file that Jumar reads, changed in many ways, and read.

Each reading must give what the file says or a sentence (a ``JumarError``), in bounded time and memory, and must neither run
code, nor import what the file names, nor write anything elsewhere. :mod:`~jumar.drills.fuzzing.mutations` changes bytes and
values, :mod:`~jumar.drills.fuzzing.targets` has the files with their readers, :mod:`~jumar.drills.fuzzing.child` reads in a
process that can be killed, and :mod:`~jumar.drills.fuzzing.campaign` drives it.
"""
