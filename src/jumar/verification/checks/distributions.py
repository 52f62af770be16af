"""Densities, entropies and divergences of action distributions against sums and quadrature."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.lab.precision import compiled_in_double
from jumar.policies.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    MultiCategorical,
    SquashedGaussian,
    mask_logits,
)
from jumar.verification.compare import gap
from jumar.verification.registry import check

DOUBLE = 1e-12
MEANS = np.array([[0.3], [-1.2], [0.0]])
LOG_STDS = np.array([[-0.4], [0.2], [-1.0]])
OTHER_MEANS = np.array([[-0.2], [-0.9], [0.4]])
OTHER_LOG_STDS = np.array([[0.1], [-0.3], [-0.6]])
HALF_RANGE = (2.5,)


@functools.cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return points of the real line that hold all but 1e-20 of the normals here, and their weights in an integral."""
    points = np.linspace(-20.0, 20.0, 8001)
    return points, np.full(points.shape, points[1] - points[0])


@functools.cache
def _gaussians() -> dict[str, np.ndarray]:
    """Return what the normals and their squashed kin say of themselves, by one program."""
    points, _ = _grid()

    @compiled_in_double
    def told(mean: Any, log_std: Any, other_mean: Any, other_log_std: Any, u: Any) -> dict[str, Any]:
        one, other = DiagGaussian(mean, log_std), DiagGaussian(other_mean, other_log_std)
        squashed, other_squashed = SquashedGaussian(one, HALF_RANGE), SquashedGaussian(other, HALF_RANGE)
        u = u[:, None, None]
        return {
            "log_prob": one.log_prob(u),
            "other_log_prob": other.log_prob(u),
            "entropy": one.entropy(),
            "kl": one.kl(other),
            "squashed_log_prob": squashed.log_prob(u),
            "other_squashed_log_prob": other_squashed.log_prob(u),
            "squashed_entropy": squashed.entropy(),
            "squashed_kl": squashed.kl(other_squashed),
        }

    return told(MEANS, LOG_STDS, OTHER_MEANS, OTHER_LOG_STDS, points)


def _under(name: str, values: np.ndarray, slopes: np.ndarray | float = 1.0) -> np.ndarray:
    """Return the integral of values over a density of the normals ``[3]``, ``slopes`` being da/du at each point."""
    _, weights = _grid()
    density = np.exp(_gaussians()[name])
    return np.sum(density * values * np.reshape(weights * slopes, (-1, 1)), 0)


def _slopes() -> np.ndarray:
    points, _ = _grid()
    return HALF_RANGE[0] / np.square(np.cosh(points))


@check("distributions/gaussian", "density, entropy and KL(p || q) of normals against quadrature", 1e-10, quick=True)
def gaussian() -> float:
    told = _gaussians()
    ones = np.ones_like(told["log_prob"])
    return max(
        gap(_under("log_prob", ones), np.ones(3)),
        gap(told["entropy"], -_under("log_prob", told["log_prob"])),
        gap(told["kl"], _under("log_prob", told["log_prob"] - told["other_log_prob"])),
    )


@check(
    "distributions/squashed-density",
    "the integral over all actions of a squashed normal's density against 1",
    1e-9,
    True,
)
def squashed_density() -> float:
    told = _gaussians()
    return gap(_under("squashed_log_prob", np.ones_like(told["log_prob"]), _slopes()), np.ones(3))


@check("distributions/squashed-entropy", "its entropy against quadrature", 1e-4, quick=True)
def squashed_entropy() -> float:
    told = _gaussians()
    return gap(told["squashed_entropy"], -_under("squashed_log_prob", told["squashed_log_prob"], _slopes()))


@check("distributions/squashed-kl", "its KL(p || q) against quadrature", 1e-9, quick=True)
def squashed_kl() -> float:
    told = _gaussians()
    difference = told["squashed_log_prob"] - told["other_squashed_log_prob"]
    return gap(told["squashed_kl"], _under("squashed_log_prob", difference, _slopes()))


LOGITS = np.array([[0.2, -1.0, 0.7, 0.0], [1.5, 0.3, -0.4, 0.9]])
OTHER_LOGITS = np.array([[-0.5, 0.1, 0.3, 1.1], [0.0, -0.8, 0.6, 0.2]])
MASK = np.array([[True, True, False, True], [False, True, True, True]])


@functools.cache
def _discrete() -> dict[str, Any]:
    """Return what distributions over finitely many actions say of themselves and of all their actions, by one program."""
    bits = np.array(list(itertools.product((0, 1), repeat=4)), np.int32)
    choices = np.array(list(itertools.product(range(4), repeat=2)), np.int32)

    @compiled_in_double
    def told(logits: Any, others: Any) -> Any:
        def of(kind: Any, actions: Any, first: Any, second: Any) -> Any:
            one, other = kind(first), kind(second)
            log_probs = jax.vmap(one.log_prob)(actions), jax.vmap(other.log_prob)(actions)
            return *log_probs, one.entropy(), one.kl(other)

        every = jnp.broadcast_to(jnp.arange(4)[:, None], (4, 2))
        masked = mask_logits(logits, jnp.asarray(MASK)), mask_logits(others, jnp.asarray(MASK))
        return {
            "categorical": of(Categorical, every, logits, others),
            "masked": of(Categorical, every, *masked),
            "multi": of(MultiCategorical, jnp.asarray(choices), logits, others),
            "bernoulli": of(Bernoulli, jnp.asarray(bits), logits[0], others[0]),
        }

    return told(LOGITS, OTHER_LOGITS)


def _against_sums(name: str) -> float:
    """Return how far probabilities, entropy and divergence are from sums over all actions."""
    log_p, log_q, entropy, divergence = _discrete()[name]
    p = np.exp(log_p)
    some = p > 0.0
    terms, ratios = np.where(some, p * log_p, 0.0), np.where(some, p * (log_p - log_q), 0.0)
    return max(gap(p.sum(0), np.ones_like(p[0])), gap(entropy, -terms.sum(0)), gap(divergence, ratios.sum(0)))


@check("distributions/categorical", "probabilities, entropy and KL(p || q) against sums over all actions", DOUBLE, True)
def categorical() -> float:
    return _against_sums("categorical")


@check(
    "distributions/multi-categorical", "the same of several choices against sums over all combinations", DOUBLE, True
)
def multi_categorical() -> float:
    return _against_sums("multi")


@check("distributions/bernoulli", "the same of bits against sums over all combinations", DOUBLE, True)
def bernoulli() -> float:
    return _against_sums("bernoulli")


@check("distributions/masks", "the same under masks, and the probability of forbidden actions", DOUBLE, quick=True)
def masks() -> float:
    log_p = _discrete()["masked"][0]
    forbidden = np.where(MASK.T, 0.0, np.exp(log_p))
    return max(_against_sums("masked"), float(forbidden.sum()))


@check("distributions/samples", "frequencies of drawn actions from their probabilities, in standard errors", 5.0)
def samples() -> float:
    n = 100_000

    @jax.jit
    def drawn(logits: Any, key: Any) -> Any:
        actions = jax.vmap(Categorical(logits).sample)(jax.random.split(key, n))
        normal = DiagGaussian(jnp.asarray([0.7]), jnp.asarray([-0.3]))
        numbers = jax.vmap(normal.sample)(jax.random.split(key, n))[:, 0]
        return jnp.mean(jax.nn.one_hot(actions, 4), 0), jnp.mean(numbers), jnp.mean(jnp.square(numbers - 0.7))

    frequencies, mean, variance = (
        np.asarray(x, np.float64) for x in drawn(LOGITS.astype(np.float32), jax.random.PRNGKey(0))
    )
    p, spread = np.exp(_discrete()["categorical"][0].T), np.exp(-0.6)
    of_actions = np.abs(frequencies - p) / np.sqrt(p * (1.0 - p) / n)
    of_normal = abs(mean - 0.7) / np.sqrt(spread / n), abs(variance - spread) / (spread * np.sqrt(2.0 / n))
    return float(max(of_actions.max(), *of_normal))
