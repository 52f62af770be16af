"""Which of two evaluations is the better one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Standing(NamedTuple):
    """What makes one evaluation better than another: the larger of two, entry by entry, is the better."""

    comparable: bool
    mean_return: float


def standing(record: Mapping[str, Any]) -> Standing:
    """Return how an evaluation (its line of ``evaluations.jsonl``) stands among others.

    The return of an episode that was cut is not the whole one. Where it is positive, the whole one would probably have been
    larger still, so it is not too much to count what was collected. Where it is zero or negative the whole one may
    have been anything, and each evaluation with such an episode stands behind all others.
    """
    return Standing(all(x > 0 for x in record.get("cut_returns", ())), float(record["mean_return"]))
