"""Figures of fields: where true and natural gradients point, all over a plane of parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.figures.drawing import BLUE, CONTOURS, RED, field, frame, optimum, panels
from jumar.figures.figure import Data, Figure
from jumar.lab import gradients, regulator
from jumar.lab.linear_quadratic import LinearQuadratic, linear_policy
from jumar.lab.precision import in_double
from jumar.lab.quadratic_values import discounted_moments, performance
from jumar.lab.riccati import optimum as best_policy
from jumar.lab.texts import BOOK, TRPO_SLIDES
from jumar.policies.distributions import DiagGaussian
from jumar.solvers.fisher import dense, fisher_product

THETA_1, THETA_2 = r"$\theta_1$ (gain)", r"$\theta_2$ (deviation)"

# -- Figure 12.2 ------------------------------------------------------------------------------------------------------

FIELD = regulator.Regulator(gamma=0.9)


def fields() -> Data:
    """Compute both gradients of the regulator on a grid, and how well they point to the optimum."""
    theta_1, theta_2 = np.linspace(-2.0, 0.0, 9), np.linspace(0.05, 0.45, 9)
    places = np.stack(np.meshgrid(theta_1, theta_2), -1)

    def both(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        return regulator.policy_gradient(FIELD, theta), regulator.natural_gradient(FIELD, theta)

    true, natural = in_double(jax.jit(jax.vmap(jax.vmap(both))))(places)
    ahead = np.asarray(regulator.OPTIMUM) - places
    return {
        "theta_1": theta_1,
        "theta_2": theta_2,
        "true_gradient": true,
        "natural_gradient": natural,
        "cosine_true": _cosines(true, ahead),
        "cosine_natural": _cosines(natural, ahead),
    }


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, -1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def draw_fields(data: Data) -> Any:
    """Draw a panel for each gradient."""
    figure, axes = panels(2, 4.6, 3.9, sharey=True)
    for axis, name, colour in zip(axes, ("true", "natural"), (RED, BLUE), strict=True):
        field(axis, data["theta_1"], data["theta_2"], data[f"{name}_gradient"], colour)
        cosine = np.mean(data[f"cosine_{name}"])
        frame(axis, f"{name} gradient (mean cosine {cosine:.2f})", THETA_1, THETA_2 if name == "true" else "")
        optimum(axis, regulator.OPTIMUM)
        axis.set_xlim(-2.15, 0.15)
        axis.set_ylim(-0.02, 0.49)
    return figure


# -- the fields of Peters and Schaal ------------------------------------------------------------------------------------

REGULATED = LinearQuadratic.of(
    dynamics=[[1.0]],
    control=[[1.0]],
    state_cost=[[1.0]],
    action_cost=[[0.5]],
    noise=[[0.05]],
    mean=[0.0],
    spread=[[1.0]],
    gamma=0.95,
)
"""A scalar state with a cost on actions and no horizon."""
GAINS, DEVIATIONS = np.linspace(-1.6, -0.1, 11), np.linspace(0.1, 1.0, 10)


def linear_quadratic_fields() -> Data:
    """Compute the performance and both gradients over gain and deviation of a linear policy."""

    def worth(theta: jax.Array) -> jax.Array:
        return performance(REGULATED, _policy(theta))

    def natural(theta: jax.Array, gradient: jax.Array) -> jax.Array:
        moments = discounted_moments(REGULATED, _policy(theta))
        # The Fisher matrix is linear in the squared state: the root of its mean stands for all states.
        typical = jnp.sqrt(moments[:1, 0] / moments[1, 1])
        product = fisher_product(
            lambda theta: DiagGaussian(theta[0] * typical[:, None], jnp.log(theta[1:])[None]), theta, jnp.ones(1)
        )
        return gradients.solve(dense(product, theta), gradient)

    def both(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient = jax.grad(worth)(theta)
        return gradient, natural(theta, gradient)

    places = np.stack(np.meshgrid(GAINS, DEVIATIONS), -1)
    fine = np.linspace(-1.7, 0.0, 69), np.linspace(0.0, 1.1, 45)
    true, natural_field = in_double(jax.jit(jax.vmap(jax.vmap(both))))(places)
    best = best_policy(REGULATED).policy
    return {
        "gains": GAINS,
        "deviations": DEVIATIONS,
        "true_gradient": true,
        "natural_gradient": natural_field,
        "contour_gains": fine[0],
        "contour_deviations": fine[1],
        "performance": in_double(jax.jit(jax.vmap(jax.vmap(worth))))(np.stack(np.meshgrid(*fine), -1)),
        "best": np.array([np.asarray(best.gain)[0, 0], 0.0]),
    }


def _policy(theta: jax.Array) -> Any:
    return linear_policy(REGULATED, theta[:1, None], theta[1])  # type: ignore[arg-type]


def draw_linear_quadratic_fields(data: Data) -> Any:
    """Draw a panel for each gradient over contours of the performance."""
    figure, axes = panels(2, 4.6, 3.9, sharey=True)
    worth = data["performance"]
    loss = np.log(np.where(worth < 0.0, -worth, np.nan))
    for axis, name, colour in zip(axes, ("true", "natural"), (RED, BLUE), strict=True):
        axis.contour(
            data["contour_gains"],
            data["contour_deviations"],
            loss,
            18,
            colors=CONTOURS,
            linewidths=0.7,
            linestyles="solid",
        )
        field(axis, data["gains"], data["deviations"], data[f"{name}_gradient"], colour)
        frame(axis, f"{name} gradient", "gain $K$", r"deviation $\sigma$" if name == "true" else "")
        axis.grid(visible=False)
        optimum(axis, data["best"])
        axis.set_xlim(-1.75, 0.05)
        axis.set_ylim(-0.03, 1.1)
    return figure


FIGURES = (
    Figure(
        name="12.2",
        title="true and natural gradients of the regulator",
        source=f"{BOOK}, Figure 12.2",
        caption="Directions of the true gradient (left) and the natural one (right) of the simple regulator, "
        f"exactly, with 10 steps and a discount of {FIELD.gamma}; the best parameters are black. The true gradient "
        "mostly asks for less noise; the natural one points to the optimum. The titles give the mean cosine with "
        "the way there.",
        compute=fields,
        draw=draw_fields,
    ),
    Figure(
        name="peters-schaal",
        title="plain and natural gradients of a linear-quadratic problem",
        source=f"{TRPO_SLIDES}, the fields after Peters and Schaal 2008",
        caption="A state s that becomes s + a and noise (variance 0.05), with the cost s² + a² / 2 and a discount "
        "of 0.95, and the policy a ~ N(K s, σ²), exactly. Directions of the gradient of the return "
        "(left) and of the natural gradient (right), over contours of the return; the best policy is black. The "
        "plain gradient mainly reduces exploration; the natural one changes the gain most where there is "
        "little exploration.",
        compute=linear_quadratic_fields,
        draw=draw_linear_quadratic_fields,
    ),
)
