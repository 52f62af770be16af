"""What ``jumar doctor`` looks at: the installation, the machine, the places where Jumar writes, and a short training.

What could crash or hang is done in a process of its own (:mod:`~jumar.verification.doctor.probe`), so that the doctor outlives
it and can say what happened.
"""
