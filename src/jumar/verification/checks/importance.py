"""Importance sampling: what one policy did, as an estimate of what another is worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from jumar.estimators import importance
from jumar.lab import tabular
from jumar.lab.precision import compiled_in_double
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.verification import estimates
from jumar.verification.compare import gap
from jumar.verification.enumeration import ACTED, ACTIONS, GAMMA, LENGTH, OTHER, STATES, everything, exact, process
from jumar.verification.estimates import DOUBLE
from jumar.verification.registry import check


def _of_other() -> tuple[np.ndarray, np.ndarray]:
    """Return V ``[T + 1, S]`` and Q ``[T + 1, S, A]`` of the policy that did not act; nothing is worth anything at the end."""
    known = exact(other=True)
    return tuple(np.concatenate([x, np.zeros_like(x[:1])]) for x in (known.values, known.action_values))  # type: ignore[return-value]


@check(
    "importance/v-trace",
    "mean target by another policy's trajectories, values wrong, against the exact V",
    DOUBLE,
    True,
)
def v_trace() -> float:
    all_of, draw = everything(), np.random.default_rng(1)
    wrong = draw.normal(size=(LENGTH + 1, STATES))
    time = np.arange(LENGTH)[:, None]
    here, after = wrong[time, all_of.states], wrong[time + 1, all_of.successors]
    _, targets = estimates.v_trace(here, after, estimates.rows_ending("terminated"), estimates.log_ratios(), np.inf)
    first = all_of.states[0]
    means = np.bincount(first, targets[0], STATES) / np.maximum(np.bincount(first, minlength=STATES), 1)
    begun = np.bincount(first, minlength=STATES) > 0
    return gap(means[begun], exact(other=True).values[0][begun])


@check("importance/v-trace-bounds", "mean target with cut ratios at the exact V, which is where it stays", DOUBLE, True)
def v_trace_bounds() -> float:
    r"""With cut ratios it stays at the value of :math:`\pi_{\bar\rho} \propto \min(\bar\rho \mu, \pi)`."""
    all_of = everything()
    cut = np.minimum(ACTED, OTHER)
    cut = cut / cut.sum(-1, keepdims=True)

    @compiled_in_double
    def values_of(mdp: TabularMDP, logits: Any) -> Any:
        return tabular.state_values(mdp, Categorical(logits))

    values = np.concatenate([values_of(process(), np.log(cut)), np.zeros((1, STATES))])
    time = np.arange(LENGTH)[:, None]
    here, after = values[time, all_of.states], values[time + 1, all_of.successors]
    _, targets = estimates.v_trace(here, after, estimates.rows_ending("terminated"), estimates.log_ratios(), 1.0)
    first = all_of.states[0]
    counts = np.bincount(first, minlength=STATES)
    means = np.bincount(first, targets[0], STATES)[counts > 0] / counts[counts > 0]
    return gap(means, values[0][counts > 0])


@check(
    "importance/retrace",
    "mean target by another policy's trajectories at the exact Q, which is where it stays",
    DOUBLE,
    True,
)
def retrace() -> float:
    all_of, (values, action_values) = everything(), _of_other()
    time = np.arange(LENGTH)[:, None]
    taken = action_values[time, all_of.states, all_of.actions]
    found = estimates.retrace(
        taken, values[time + 1, all_of.successors], estimates.rows_ending("terminated"), estimates.log_ratios()
    )
    return estimates.mean_error(found, action_values[0])


@check(
    "importance/cut-ratios", "mean with cut ratios and what makes up for them against the policy's mean", DOUBLE, True
)
def cut_ratios() -> float:
    worth = np.random.default_rng(2).normal(size=(STATES, ACTIONS))
    log_ratios, bound = np.log(OTHER / ACTED), 1.1

    @compiled_in_double
    def beyond(log_ratios: Any, probs: Any) -> Any:
        return importance.beyond_bound(log_ratios, probs, bound)

    cut = np.sum(ACTED * np.minimum(bound, OTHER / ACTED) * worth, -1)
    return gap(cut + np.sum(beyond(log_ratios, OTHER) * worth, -1), np.sum(OTHER * worth, -1))


@check(
    "importance/trajectory-ratios", "mean return with ratios of trajectories against the other policy's J", DOUBLE, True
)
def trajectory_ratios() -> float:
    rows = estimates.rows_ending("terminated")

    @compiled_in_double
    def ratios(log_ratios: Any, ended: Any) -> Any:
        whole = importance.weights_of_trajectories(log_ratios, ended)
        so_far = importance.weights_so_far(log_ratios, ended)
        return whole, so_far, importance.weights_to_come(log_ratios, ended)

    whole, so_far, to_come = ratios(estimates.log_ratios(), rows["terminated"])
    falling = GAMMA ** np.arange(LENGTH)[:, None]
    wanted = float(exact(other=True).performance)
    by_row = float(np.mean(np.sum(so_far * falling * rows["rewards"], 0)))
    returns = np.sum(falling * rows["rewards"], 0)
    return max(abs(float(np.mean(x * returns)) - wanted) for x in (whole[0], to_come[0])) + abs(by_row - wanted)
