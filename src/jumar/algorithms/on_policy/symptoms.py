"""What may go wrong in updates from rollouts, told by their flight record."""

from __future__ import annotations

import math
from collections.abc import Mapping


def symptoms(metrics: Mapping[str, float | None]) -> dict[str, str]:
    """Return for every known trouble a sentence if this iteration shows it, else an empty text."""

    def value(name: str) -> float:
        number = metrics.get(f"train/{name}")
        return float("nan") if number is None else number

    kl, clipped, explained = value("mean_kl"), value("clip_fraction"), value("explained_variance")
    beyond_a_limit = value("cost_excess") > 0.0  # there the objective is given up for the cost
    gain = value("policy_objective_after") - value("policy_objective_before")
    stopped = value("stopped_early") > 0.0 and value("gradient_steps") <= 1.0
    nothing_counts, no_step = value("counted") == 0.0, value("unsound_step") > 0.0
    rejected = value("step_fraction") == 0.0 and value("grad_norm") != 0.0 and not (nothing_counts or no_step)
    unsolved = value("cg_residual")
    return {
        "uncounted": "no episode ends inside a rollout, so nothing is learnt; raise n_steps, or set baseline to critic"
        * nothing_counts,
        "unsound": "the policy's step is not a number, and is not taken: a deviation of 0, or probabilities beyond float32"
        * no_step,
        "rejected": ("the line search rejects every step" + _explaining(explained)) * rejected,
        "singular": "conjugate gradients meet a direction without curvature: the Fisher matrix is singular; raise cg_damping"
        * (value("cg_blocked") > 0.0),
        "unsolved": f"conjugate gradients leave {100 * unsolved:.0f} % of the gradient unsolved; raise cg_max_steps, cg_damping"
        * (unsolved > 0.9),
        "critic": "the critic predicts the returns worse than their mean would" * (explained < -1.0),
        "far": f"each update moves the policy far: mean KL {kl:.3g}; try a lower learning_rate or n_epochs"
        * (kl > 0.2),
        "clip": f"{100 * clipped:.0f} % of the ratios are clipped; try a lower learning_rate or n_epochs"
        * (clipped > 0.6),
        "still": "the updates do not change the policy: the advantages or the gradient are zero"
        * (kl == 0.0 and not (nothing_counts or no_step or rejected)),
        "worse": f"the updates lower their own objective, by {-gain:.3g}" * (gain < -0.01 and not beyond_a_limit),
        "stopped": "target_kl stops every update at its first minibatches; raise it or lower learning_rate" * stopped,
    }


def _explaining(share: float) -> str:
    """Return, as the end of a sentence, which share of the returns' variance the critic explains; NaN without a critic."""
    return "" if math.isnan(share) else f"; the critic explains {100 * share:.0f} % of the returns' variance"
