"""Shipped estimators on all trajectories of the small process, and how far their means are from what is exact."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from jumar.estimators import advantages, importance
from jumar.lab import tabular
from jumar.lab.precision import compiled_in_double
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.verification.compare import gap
from jumar.verification.enumeration import ACTED, ACTIONS, GAMMA, LENGTH, OTHER, STATES, everything, process

DOUBLE = 1e-12
"""What double precision leaves of sums of some hundred terms."""


@functools.cache
def endless() -> tuple[np.ndarray, np.ndarray]:
    """Return V ``[S]`` and Q ``[S, A]`` of the policy that acts, in the process without an end."""

    @compiled_in_double
    def values(mdp: TabularMDP, logits: Any) -> Any:
        policy = Categorical(logits)
        return tabular.state_values(mdp, policy), tabular.action_values(mdp, policy)

    return values(process(None), np.log(ACTED))


@functools.cache
def rows_ending(ends: str) -> dict[str, Any]:
    """Return what estimators are given: all trajectories, which end ``terminated``, ``truncated`` or with the batch."""
    all_of = everything()
    last = np.zeros(all_of.shape, bool)
    last[-1] = True
    never = np.zeros(all_of.shape, bool)
    return {
        "rewards": all_of.of(process().rewards),
        "terminated": last if ends == "terminated" else never,
        "truncated": last if ends == "truncated" else never,
    }


@compiled_in_double
def gae(values: Any, successor_values: Any, rows: Any, gae_lambda: Any) -> Any:
    """Return the advantages of :func:`jumar.estimators.advantages.gae`."""
    return advantages.gae(values=values, successor_values=successor_values, gamma=GAMMA, gae_lambda=gae_lambda, **rows)


@compiled_in_double
def n_steps(successor_values: Any, rows: Any) -> Any:
    """Return the returns over 1, 2 and 3 steps."""
    return [
        advantages.n_step_returns(successor_values=successor_values, gamma=GAMMA, n=n, **rows) for n in (1, 2, LENGTH)
    ]


@compiled_in_double
def to_go(successor_values: Any, rows: Any) -> Any:
    """Return the rewards-to-go."""
    return advantages.discounted_returns(successor_values=successor_values, gamma=GAMMA, **rows)


@compiled_in_double
def full(rows: Any) -> Any:
    """Return the returns of whole episodes."""
    return advantages.full_returns(gamma=GAMMA, **rows)


@compiled_in_double
def v_trace(values: Any, successor_values: Any, rows: Any, log_ratios: Any, bound: Any) -> Any:
    """Return the advantages and the targets of V-trace, both its bounds alike."""
    return importance.v_trace(
        values=values,
        successor_values=successor_values,
        log_ratios=log_ratios,
        gamma=GAMMA,
        gae_lambda=1.0,
        rho_bar=bound,
        c_bar=bound,
        **rows,
    )


@compiled_in_double
def retrace(action_values: Any, successor_values: Any, rows: Any, log_ratios: Any) -> Any:
    """Return the targets of Retrace with a lambda of 0.9."""
    return importance.retrace(
        action_values=action_values,
        successor_values=successor_values,
        log_ratios=log_ratios,
        gamma=GAMMA,
        retrace_lambda=0.9,
        **rows,
    )


def mean_error(estimates: Any, wanted: np.ndarray) -> float:
    """Return how far the mean of the first step's estimates is from ``[S, A]``, over the states where episodes begin."""
    all_of = everything()
    estimates, totals, counts = np.asarray(estimates)[0], np.zeros((STATES, ACTIONS)), np.zeros((STATES, ACTIONS))
    np.add.at(totals, (all_of.states[0], all_of.actions[0]), estimates)
    np.add.at(counts, (all_of.states[0], all_of.actions[0]), 1.0)
    begun = counts > 0
    return gap(totals[begun] / counts[begun], np.asarray(wanted)[begun])


def log_ratios() -> np.ndarray:
    """Return log pi of the policy that did not act less that of the one that did, ``[T, N]``."""
    return everything().of(np.log(OTHER / ACTED))
