"""The figures of the texts that Jumar's methods come from, drawn from what its functions compute.

A :class:`~jumar.figures.figure.Figure` is two functions: one computes its data, the other draws them. ``jumar figure`` writes
them to files.

- ``registry``: all figures by name.
- ``gradients``: gradients, natural gradients and Fisher matrices.
- ``trust_regions``: divergences as constraints, line searches, lower bounds.
- ``clipping``: PPO's objective and its kin.
- ``control``: tasks that are known exactly, and what approximate policy iteration does in them.
- ``off_policy``: other policies' experience, critics and entropy.
- ``tasks``: what methods reach in MuJoCo's tasks, and the steps that lead to a robot.
- ``figure``, ``drawing``: what a figure is, and what all figures look like.
"""
