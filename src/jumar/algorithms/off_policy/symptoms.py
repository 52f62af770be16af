"""What may go wrong in off-policy updates, told by their flight record."""

from __future__ import annotations

from collections.abc import Mapping

LARGEST_VALUE = 1e6
"""Critics whose mean value is beyond this are taken to diverge."""
LOWEST_TEMPERATURE = 1e-4
"""A temperature below this makes entropy count for nothing."""
NEAR = 0.9
"""Values beyond this share of what critics can write are taken to be at its end."""


def symptoms(
    metrics: Mapping[str, float | None], remembered: int | None, learning_starts: int, limit: float
) -> dict[str, str]:
    """Return for every known trouble a sentence if this iteration shows it, else an empty text.

    Args:
        metrics: the iteration's, by the names of ``metrics.jsonl``.
        remembered: steps that the memory holds when it is full; ``None`` where only the newest round is learnt from.
        learning_starts: steps before the first update.
        limit: the largest size of a value that the critics can write.
    """

    def value(name: str) -> float:
        number = metrics.get(f"train/{name}")
        return float("nan") if number is None else number

    q, over, alpha = value("q_mean"), value("q_overestimation"), value("ent_coef")
    told = f", {over:.3g} more than came of it" if over > 0.0 else ""
    return {
        "diverges": f"the critics' values diverge: their mean is {q:.3g}{told}; try a lower learning_rate, or two critics"
        if abs(q) > LARGEST_VALUE
        else "",
        "limit": f"the critics' mean value is {q:.3g} where they can write no more than {limit:g}, so they cannot tell good "
        "from better; set a larger critic_limit, or normalize_rewards"
        if abs(q) > NEAR * limit
        else "",
        "temperature": f"the temperature has fallen to {alpha:.2g}, so entropy counts for nothing; set ent_coef to a "
        "number, or another target_entropy"
        if 0.0 < alpha < LOWEST_TEMPERATURE
        else "",
        "forgets": f"the memory holds {remembered:,} steps and learning starts after {learning_starts:,}: the first of them "
        "are forgotten unused; raise buffer_size or lower learning_starts"
        if remembered is not None and remembered < learning_starts
        else "",
    }
