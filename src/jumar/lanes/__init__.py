"""Lanes: environment copies that act alone, so that it makes no difference where each of them is stepped.

A *lane* is one copy of the environment with its part of the policy's memory. It sees one observation at a time, draws random
numbers by its own index, and each of its episodes has a seed of its own. So its steps are the same bit for bit in this
process and in any other, beside any other lanes; and one that is lost is rebuilt elsewhere from its open episode's seed and
actions.
"""
