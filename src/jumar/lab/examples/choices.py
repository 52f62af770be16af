"""Maximum entropy, the penalty's coefficient, and the fields of Figure 12.2."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.lab import regulator
from jumar.lab.examples.example import Example, Findings
from jumar.lab.maximum_entropy import maximum_entropy_choice
from jumar.lab.precision import compiled_in_double
from jumar.lab.regulator import OPTIMUM, Regulator
from jumar.lab.texts import BOOK, LECTURE, TRPO_SLIDES
from jumar.solvers.penalty import adapted_coefficient

WORTH, WEIGHT = np.array([1.0, 2.0, 3.0, 0.5]), 0.7


def _find_maximum_entropy() -> Findings:
    def worth(p: np.ndarray) -> float:
        return float(p @ WORTH - WEIGHT * p @ np.log(p))

    right, printed = (np.asarray(compiled_in_double(maximum_entropy_choice)(WORTH, weight)) for weight in (WEIGHT, 1.0))
    stationary = WORTH - WEIGHT * (np.log(right) + 1.0)
    return Findings(
        {"c": WORTH, "lambda": WEIGHT, "maximised": "sum p c - lambda sum p log p"},
        {
            "objective at the printed p": worth(printed),
            "objective at the right p": worth(right),
            "c - lambda (log p + 1) at the right p": stationary,
        },
        {"p": printed, "formula": "e^c / Z"},
        {"p": right, "formula": "e^(c / lambda) / Z"},
    )


def _find_coefficient() -> Findings:
    target, beta = 0.01, 1.0
    measured = np.array([0.005, 0.01, 0.02])
    right = compiled_in_double(lambda kl: adapted_coefficient(jnp.asarray(beta), kl, target))(measured)
    return Findings(
        {"target of the mean KL": target, "KL of an update": measured, "beta": beta},
        {"beta after it, KL < target / 1.5": right[0], "between": right[1], "KL > 1.5 target": right[2]},
        {"beta where KL is above its target": "smaller", "beta after each KL": 1.0 / right},
        {"beta where KL is above its target": "larger", "beta after each KL": right},
    )


THETA_1, THETA_2 = np.array([-2.0, -1.5, -1.0, -0.5, 0.0]), np.array([0.05, 0.1, 0.2, 0.3, 0.4])


def _find_fields() -> Findings:
    problem = Regulator(gamma=0.9, depth=10)

    def cosines(theta: Array) -> tuple[Array, Array, Array]:
        true, natural = regulator.policy_gradient(problem, theta), regulator.natural_gradient(problem, theta)
        aim = jnp.asarray(OPTIMUM) - theta
        return _cosine(natural, aim), _cosine(true, aim), -true[1] / jnp.linalg.norm(true)

    grid = np.stack(np.meshgrid(THETA_1, THETA_2, indexing="ij"), -1).reshape(-1, 2)
    natural, true, down = compiled_in_double(jax.vmap(cosines))(grid)
    return Findings(
        {"theta1": THETA_1, "theta2": THETA_2, "gamma": problem.gamma, "depth": problem.depth, "optimum": OPTIMUM},
        {
            "natural gradient: smallest cosine to the optimum": natural.min(),
            "mean cosine": natural.mean(),
            "true gradient: smallest cosine": true.min(),
            "mean cosine of the true gradient": true.mean(),
            "share of the true gradient along -theta2": down.mean(),
            "that share, by theta1 and theta2": down.reshape(5, 5),
        },
        {
            "natural gradient points to the optimum": True,
            "true gradient mostly asks for less theta2": True,
        },
        {
            "natural gradient points to the optimum": bool(natural.min() > 0.95),
            "true gradient mostly asks for less theta2": bool(down.mean() > 0.5 > down.min()),
        },
    )


def _cosine(a: Array, b: Array) -> Array:
    return a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)


EXAMPLES = (
    Example(
        "maximum-entropy",
        "the distribution of most value and entropy",
        f"{LECTURE}, maximum entropy",
        "Which distribution p maximises sum p c + lambda times its entropy?",
        "Wrong: the temperature is missing in the exponent. At the optimum c - lambda (log p + 1) is the same for every "
        "choice, the multiplier of sum p = 1, which the slide leaves out too. A policy of maximum entropy is e^(Q / "
        "alpha) / Z for the same reason.",
        _find_maximum_entropy,
    ),
    Example(
        "penalty-coefficient",
        "how the penalty's coefficient is adapted",
        f"{TRPO_SLIDES}, PPO with an adaptive penalty",
        "An update's divergence is above its target. Does the coefficient of the penalty grow or shrink?",
        "Wrong in the prose, which shrinks the penalty where the divergence is too large; the algorithm on the same "
        "slides doubles it. With the prose's rule the divergence would grow from update to update.",
        _find_coefficient,
    ),
    Example(
        "figure-12.2",
        "the true and the natural gradient of the regulator",
        f"{BOOK}, Figure 12.2",
        "On a grid over the figure, does the natural gradient point to the optimum, and where does the true one point?",
        "Right as the caption says, generally: at theta1 = -2 and at 0 the part of the true gradient along theta1 is the "
        "larger one.",
        _find_fields,
    ),
)
"""The examples of this module."""
