"""Each on-policy method's whole update on all trajectories of a small process, against what it is in theory."""

from __future__ import annotations

import numpy as np

from jumar.verification.compare import relative_gap
from jumar.verification.enumeration import ACTED, ACTIONS, GAMMA, LENGTH, STATES, everything, exact, process
from jumar.verification.registry import check
from jumar.verification.updates import (
    DELTA,
    ENTROPY,
    KL_COEF,
    RATE,
    ROOM,
    SETTINGS,
    improved,
    probabilities,
)

SINGLE = 2e-5
"""What single precision leaves of an update."""
STEPS = float(np.sum(GAMMA ** np.arange(LENGTH)))
"""The weight of all steps of an episode: an update's means are sums over episodes divided by it."""


def _mean_gradient() -> np.ndarray:
    return exact().gradient / STEPS


def _state_weights() -> np.ndarray:
    return exact().visits.sum(0) / STEPS


@check("gradients/reinforce", "the step against the exact policy gradient", SINGLE)
def reinforce() -> float:
    return relative_gap(improved("reinforce").change, _mean_gradient())


@check("gradients/a2c", "the step with GAE and an entropy bonus against the exact gradient of both", SINGLE)
def a2c() -> float:
    log_probs = np.log(ACTED)
    slopes = -ACTED * (log_probs - np.sum(ACTED * log_probs, -1, keepdims=True))
    return relative_gap(improved("a2c").change, _mean_gradient() + ENTROPY * _state_weights()[:, None] * slopes)


@check("gradients/ispg", "the step from what another policy did against the policy's exact gradient", SINGLE)
def ispg() -> float:
    return relative_gap(improved("ispg").change, exact(other=True).gradient / STEPS)


@check("gradients/acer", "the step with Retrace against the exact gradient, states weighed alike", SINGLE)
def acer() -> float:
    known = exact()
    advantages = known.action_values - known.values[..., None]
    alike = known.visits / GAMMA ** np.arange(LENGTH)[:, None]
    return relative_gap(improved("acer").change, np.einsum("ts,sa,tsa->sa", alike, ACTED, advantages) / LENGTH)


@check("gradients/restricted", "the step against sqrt(2 epsilon) along the exact gradient", SINGLE)
def restricted() -> float:
    gradient, epsilon = exact().gradient, SETTINGS["restricted"]["epsilon"]
    return relative_gap(improved("restricted").change, np.sqrt(2.0 * epsilon) * gradient / np.linalg.norm(gradient))


def natural_step(delta: float = DELTA) -> np.ndarray:
    """Return the exact natural step to the boundary, ``[S, A]``, by the pseudo-inverse of the Fisher matrix in NumPy."""
    known = exact()
    gradient = known.gradient.reshape(-1)
    direction = np.linalg.pinv(known.fisher, rcond=1e-10) @ gradient
    return (np.sqrt(2.0 * delta / (gradient @ direction)) * direction).reshape(STATES, ACTIONS)


@check("gradients/npg", "the step against the exact natural gradient, to its boundary", 1e-4)
def npg() -> float:
    return relative_gap(improved("npg").change, natural_step())


@check("gradients/tnpg", "the step by conjugate gradients against the exact natural gradient, to its boundary", 1e-4)
def tnpg() -> float:
    return relative_gap(improved("tnpg").change, natural_step())


@check("gradients/trpo", "the step that the line search took against that part of the exact natural step", 1e-4)
def trpo() -> float:
    found = improved("trpo")
    return relative_gap(found.change, found.record["step_fraction"] * natural_step())


@check("gradients/acktr", "the Kronecker-factored step against the exact natural step, where the two are one", 2e-3)
def acktr() -> float:
    return relative_gap(improved("acktr").change, natural_step())


def _advantages() -> np.ndarray:
    """Return GAE with the exact values and a lambda of 0.7, ``[T, N]``."""
    all_of, known = everything(), exact()
    rows = all_of.shape[1]
    rewards = all_of.of(process().rewards)
    values = known.values[np.arange(LENGTH)[:, None], all_of.states]
    advantages, later, following = np.zeros(all_of.shape), np.zeros(rows), np.zeros(rows)
    for t in reversed(range(LENGTH)):
        later = rewards[t] + GAMMA * following - values[t] + GAMMA * 0.7 * later
        advantages[t], following = later, values[t]
    return advantages


def _gradient_of_rows(factors: np.ndarray, probs: np.ndarray) -> np.ndarray:
    r"""Return the weighted mean of :math:`x \nabla \log \pi(a|s)` over all rows, ``[S, A]``; ``factors`` ``[T, N]``."""
    all_of = everything()
    weighted = factors * GAMMA ** np.arange(LENGTH)[:, None] / (STEPS * all_of.shape[1])
    total = np.zeros((STATES, ACTIONS))
    np.add.at(total, (all_of.states, all_of.actions), weighted)
    return total - total.sum(-1, keepdims=True) * probs


def _second_step(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the change of both steps but for the second gradient, the policy between them, and its ratios ``[T, N]``."""
    first = RATE * _mean_gradient()
    between = probabilities(np.log(ACTED) + first)
    return improved(name).change - first, between, everything().of(between / ACTED)


@check(
    "gradients/ppo",
    "the second step, where ratios are clipped, against the clipped surrogate's exact gradient",
    1e-4,
    quick=True,
)
def ppo() -> float:
    left, between, ratios = _second_step("ppo")
    advantages = _advantages()
    clipped = ((advantages > 0.0) & (ratios > 1.2)) | ((advantages < 0.0) & (ratios < 0.8))
    if not 0.1 < clipped.mean() < 0.9:
        raise ValueError(f"{clipped.mean():.2f} of the rows are clipped, and the check needs both kinds")
    return relative_gap(left, RATE * _gradient_of_rows(np.where(clipped, 0.0, ratios * advantages), between))


@check("gradients/ppo-penalty", "the second step against the exact gradient with that of KL(old || new)", 1e-4)
def ppo_penalty() -> float:
    left, between, ratios = _second_step("ppo-penalty")
    of_divergence = _state_weights()[:, None] * (between - ACTED)
    return relative_gap(left, RATE * (_gradient_of_rows(ratios * _advantages(), between) - KL_COEF * of_divergence))


def constrained_step() -> np.ndarray:
    r"""Return the best step that raises the mean cost to its limit, ``[S, A]``, by bisection of the cost's multiplier."""
    rewards, costs = exact(1.0), exact(1.0, costs=True)
    g, b = rewards.gradient.reshape(-1) / LENGTH, costs.gradient.reshape(-1) / LENGTH
    inverse = np.linalg.pinv(rewards.fisher, rcond=1e-10)
    delta = SETTINGS["cpo"]["target_kl"]

    def step(multiplier: float) -> np.ndarray:
        direction = inverse @ (g - multiplier * b)
        return np.sqrt(2.0 * delta / (direction @ rewards.fisher @ direction)) * direction

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if -ROOM / LENGTH + b @ step(middle) > 0.0 else (low, middle)
    return step(high).reshape(STATES, ACTIONS)


@check("gradients/cpo", "the step that the line search took against that part of the exact constrained step", 2e-4)
def cpo() -> float:
    found = improved("cpo")
    return relative_gap(found.change, found.record["step_fraction"] * constrained_step())
