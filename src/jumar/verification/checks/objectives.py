"""Objectives and losses of one row, and their slopes, against what they are by hand."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.lab.precision import compiled_in_double
from jumar.policies.distributions import Categorical
from jumar.solvers import objectives
from jumar.solvers.ascent import clip_gradient, scale_gradient
from jumar.solvers.problem import kl, reverse_kl
from jumar.trajectory import standardise
from jumar.verification.compare import gap
from jumar.verification.registry import check

DOUBLE = 1e-12
RATIOS = np.array([0.5, 0.9, 1.1, 1.5])
"""Two within the clip range of 0.2, one below and one above it."""


@functools.cache
def _told() -> dict[str, Any]:
    """Return objectives and slopes in the log-probability at all ratios, with advantages of both signs, by one program."""

    @compiled_in_double
    def told(log_ratios: Any) -> dict[str, Any]:
        zeros = jnp.zeros_like(log_ratios)
        found: dict[str, Any] = {}
        for sign, advantage in (("good", jnp.asarray(2.0)), ("bad", jnp.asarray(-2.0))):
            rows = {
                "clipped": lambda x, a=advantage: objectives.clipped_surrogate(x, zeros, a, 0.2),
                "surrogate": lambda x, a=advantage: objectives.surrogate(x, zeros, a),
                "score": lambda x, a=advantage: objectives.score(x, a),
            }
            for name, rows_of in rows.items():
                found[f"{name} {sign}"] = rows_of(log_ratios), jax.grad(lambda x, f=rows_of: jnp.sum(f(x)))(log_ratios)
        values, old, targets = jnp.array([2.0, 0.2, -2.0]), jnp.zeros(3), jnp.array([3.0, 1.0, 3.0])

        def loss(x: Any) -> Any:
            return objectives.clipped_value_loss(x, old, targets, 0.5)

        def huber(x: Any) -> Any:
            return objectives.huber_loss(x, targets, 1.5)

        return {
            **found,
            "values": (loss(values), jax.grad(lambda x: jnp.sum(loss(x)))(values)),
            "huber": (huber(values), jax.grad(lambda x: jnp.sum(huber(x)))(values)),
            "sampled": objectives.sampled_kl(log_ratios, zeros),
        }

    return told(np.log(RATIOS))


@check(
    "objectives/clipping", "slope of PPO's objective: none where A > 0, w > 1.2 and where A < 0, w < 0.8", DOUBLE, True
)
def clipping() -> float:
    good, bad = _told()["clipped good"][1], _told()["clipped bad"][1]
    return max(gap(good, [1.0, 1.8, 2.2, 0.0]), gap(bad, [0.0, -1.8, -2.2, -3.0]))


@check("objectives/clipped", "PPO's objective at ratios within and beyond the range, both signs", DOUBLE, quick=True)
def clipped() -> float:
    good, bad = _told()["clipped good"][0], _told()["clipped bad"][0]
    return max(gap(good, [1.0, 1.8, 2.2, 2.4]), gap(bad, [-1.6, -1.8, -2.2, -3.0]))


@check("objectives/surrogate", "ratio times advantage, and its slope", DOUBLE, quick=True)
def surrogate() -> float:
    told, wanted = _told(), 2.0 * RATIOS
    return max(
        gap(x, sign * wanted) for name, sign in (("good", 1.0), ("bad", -1.0)) for x in told[f"surrogate {name}"]
    )


@check("objectives/score", "log-probability times advantage, and its slope", DOUBLE, quick=True)
def score() -> float:
    told = _told()["score bad"]
    return max(gap(told[0], -2.0 * np.log(RATIOS)), gap(told[1], np.full(4, -2.0)))


@check(
    "objectives/value-clipping", "the larger of the clipped and the unclipped loss, and its slope", DOUBLE, quick=True
)
def value_clipping() -> float:
    """Unclipped (2-3)^2, (0.2-1)^2, (-2-3)^2; clipped (0.5-3)^2, (0.2-1)^2, (-0.5-3)^2."""
    losses, slopes = _told()["values"]
    return max(gap(losses, [6.25, 0.64, 25.0]), gap(slopes, [0.0, -1.6, -10.0]))


@check("objectives/huber", "twice Huber's loss with a width of 1.5, and its slope", DOUBLE, quick=True)
def huber() -> float:
    losses, slopes = _told()["huber"]
    return max(gap(losses, [1.0, 0.64, 2.0 * 1.5 * 5.0 - 2.25]), gap(slopes, [-2.0, -1.6, -3.0]))


@check(
    "objectives/sampled-kl", "(w - 1) - log w, and its mean over two actions against KL(old || new)", DOUBLE, quick=True
)
def sampled_kl() -> float:
    found = gap(_told()["sampled"], RATIOS - 1.0 - np.log(RATIOS))
    old, new = np.array([0.9, 0.1]), np.array([0.5, 0.5])

    @compiled_in_double
    def rows(new: Any, old: Any) -> Any:
        return objectives.sampled_kl(new, old)

    mean = float(old @ rows(np.log(new), np.log(old)))
    return max(found, abs(mean - float(old @ np.log(old / new))))


@check(
    "objectives/kl-direction", "KL(old || new) of (0.9, 0.1) and (0.5, 0.5), which is 0.368 and not 0.511", DOUBLE, True
)
def kl_direction() -> float:
    old, new = np.array([0.9, 0.1]), np.array([0.5, 0.5])

    @compiled_in_double
    def both(old: Any, new: Any) -> Any:
        batch: Any = None
        first, second = Categorical(old), Categorical(new)
        return kl(first, second, batch), reverse_kl(first, second, batch)

    forward, backward = both(np.log(old), np.log(new))
    return max(gap(forward, old @ np.log(old / new)), gap(backward, new @ np.log(new / old)))


@check(
    "objectives/standardise", "advantages less their mean over their deviation, rows of weight 0 left out", 1e-6, True
)
def standardised() -> float:
    values, weights = np.array([1.0, 4.0, -2.0, 99.0]), np.array([1.0, 1.0, 1.0, 0.0])

    @compiled_in_double
    def scaled(values: Any, weights: Any) -> Any:
        return standardise(values, weights)

    return gap(scaled(values, weights)[:3], np.array([0.0, 1.0, -1.0]))


@check(
    "objectives/gradient-limits", "scaling a gradient to a norm and clipping its entries, algorithm 12.2", DOUBLE, True
)
def gradient_limits() -> float:
    @compiled_in_double
    def limited(long: Any, short: Any, none: Any) -> Any:
        scaled = [scale_gradient(x, 1.0) for x in (long, short, none)]
        return [*scaled, clip_gradient(long, 1.0, -2.0), clip_gradient(long, 1.0)]

    long, short, none = np.array([3.0, -4.0]), np.array([0.3, 0.4]), np.zeros(2)
    wanted = [[0.6, -0.8], short, none, [1.0, -2.0], [1.0, -1.0]]
    return max(gap(x, y) for x, y in zip(limited(long, short, none), wanted, strict=True))
