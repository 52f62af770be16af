"""Comparisons of methods on tasks over seeds: the runs that they need, spread over the processors, and their report.

:func:`~jumar.studies.compare.compare` does what ``jumar compare`` does. The runs are ordinary ones, each in a run
directory of its own inside of the comparison's, so that they can be resumed, evaluated and compared anew.
"""
