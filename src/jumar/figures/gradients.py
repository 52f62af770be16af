"""Figures of gradients: true and natural fields, step lengths in two geometries, and what the parametrisation hides."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.figures.drawing import (
    BLACK,
    BLUE,
    CONTOURS,
    GREEN,
    MARKERS,
    ORANGE,
    RED,
    arrow,
    frame,
    label,
    legend,
    look,
    panels,
)
from jumar.figures.figure import Data, Figure
from jumar.figures.levels import ellipse
from jumar.lab import families, gradients, regulator, variances, worked
from jumar.lab.precision import in_double
from jumar.lab.tabular import random_mdp
from jumar.lab.texts import BOOK, NATURAL_SLIDES, NOTES
from jumar.solvers.fisher import boundary_length

# -- Figure 12.3 ------------------------------------------------------------------------------------------------------

CONSTRAINED, CONSTRAINED_BOUND = regulator.Regulator(gamma=0.9), 0.15
CONSTRAINED_AT: Any = np.array([-0.3, 0.3])


def natural_direction() -> Data:
    """Compute the ellipse at one point of the regulator, and the longest steps in it along both gradients."""
    fisher, gradient, natural, along, step = map(np.asarray, _natural_direction(CONSTRAINED_AT))
    return {
        "theta": CONSTRAINED_AT,
        "gradient": gradient,
        "natural_gradient": natural,
        "fisher": fisher,
        "ellipse": ellipse(fisher, CONSTRAINED_BOUND),
        "step_along_gradient": along,
        "natural_step": step,
        "gains": np.array([gradient @ along, gradient @ step]),
    }


@in_double
@jax.jit
def _natural_direction(theta: jax.Array) -> tuple[jax.Array, ...]:
    fisher = regulator.trajectory_fisher(CONSTRAINED, theta)
    gradient = regulator.policy_gradient(CONSTRAINED, theta)
    along = boundary_length(gradient @ fisher @ gradient, CONSTRAINED_BOUND) * gradient
    step = gradients.natural_step(fisher, gradient, CONSTRAINED_BOUND)
    return fisher, gradient, gradients.solve(fisher, gradient), along, step


def draw_natural_direction(data: Data) -> Any:
    """Draw the ellipse, both steps to its edge, and the line of equal promised gain that touches it."""
    figure, [axes] = panels(1, 6.4, 3.2)
    edge, step, natural = data["ellipse"], data["step_along_gradient"], data["natural_step"]
    axes.fill(*edge.T, color=CONTOURS, alpha=0.25, linewidth=0)
    axes.plot(*edge.T, color=BLACK, linewidth=1.4)
    # All steps of one promised gain lie on a line that is perpendicular to the gradient.
    across = np.array([-data["gradient"][1], data["gradient"][0]])
    across = across / np.linalg.norm(across) * np.abs(edge).max() * 0.8
    axes.plot(*np.stack([natural - across, natural + across]).T, color=CONTOURS, linestyle=":", linewidth=1.4)
    arrow(axes, (0, 0), step, RED)
    arrow(axes, (0, 0), natural, BLUE)
    axes.plot(0, 0, "o", color=BLACK, markersize=5)
    label(axes, (step[0] + 0.02, step[1] - 0.012), r"$\nabla U(\theta)$", RED, ha="left", fontsize=12)
    label(axes, (natural[0] - 0.012, natural[1] - 0.008), r"$F^{-1} \nabla U(\theta)$", BLUE, ha="right", fontsize=12)
    top = edge[np.argmax(edge[:, 1])]
    label(
        axes, np.add(top, (0.0, 0.014)), r"$\frac{1}{2} \Delta\theta^T F \Delta\theta = \epsilon$", BLACK, fontsize=11
    )
    frame(axes, "", r"$\Delta\theta_1$", r"$\Delta\theta_2$")
    axes.set_aspect("equal")
    axes.margins(0.12)
    return figure


# -- two actions ------------------------------------------------------------------------------------------------------

SIGMOID_AT: Any = np.array([4.0, 2.0, 0.0])


def sigmoid_policy() -> Data:
    """Compute the policy of two actions at three parameters, and how far one is from the next."""
    theta = np.linspace(-2.0, 6.0, 161)

    def probability(theta: jax.Array) -> jax.Array:
        return worked.bernoulli(theta[None]).probs[0, 1]

    def divergence(old: jax.Array, new: jax.Array) -> jax.Array:
        return worked.bernoulli(old[None]).kl(worked.bernoulli(new[None]))[0]

    curve = in_double(jax.jit(jax.vmap(probability)))
    return {
        "theta": theta,
        "probability": curve(theta),
        "points": SIGMOID_AT,
        "probabilities": curve(SIGMOID_AT),
        "divergences": in_double(jax.vmap(divergence))(SIGMOID_AT[:-1], SIGMOID_AT[1:]),
    }


def draw_sigmoid_policy(data: Data) -> Any:
    """Draw the curve with the three points, and the policy at each of them."""
    from matplotlib.gridspec import GridSpec

    from jumar.report.style import new_figure

    figure = new_figure(8.6, 3.3)
    grid = GridSpec(1, 5, figure=figure, width_ratios=[2.6, 0.12, 1, 1, 1])
    axes = figure.add_subplot(grid[0])
    axes.plot(data["theta"], data["probability"], color=BLACK, linewidth=1.6)
    frame(axes, "", r"$\theta$", r"$\pi(1) = \sigma(\theta)$")
    axes.set_ylim(0.0, 1.08)
    for i, (at, prob) in enumerate(zip(data["points"], data["probabilities"], strict=True)):
        colour = (BLUE, GREEN, RED)[i]
        axes.plot(at, prob, MARKERS[i], color=colour, markersize=8, zorder=4)
        bars = figure.add_subplot(grid[2 + i])
        bars.bar((1, 2), (prob, 1.0 - prob), color=colour, width=0.7)
        for place, height in ((1, prob), (2, 1.0 - prob)):
            bars.text(place, height + 0.02, f"{height:.2f}", ha="center", fontsize=9)
        frame(bars, rf"$\theta = {at:g}$", "action", r"$\pi$" if i == 0 else "")
        bars.set_ylim(0.0, 1.08)
        bars.set_xticks((1, 2))
        if i:
            bars.set_yticklabels([])
    for i, divergence in enumerate(data["divergences"]):
        ends = data["points"][i : i + 2]
        arrow(axes, (ends[0], 0.16 + 0.14 * i), (ends[1], 0.16 + 0.14 * i), BLACK, 1.2)
        label(axes, (float(np.mean(ends)), 0.22 + 0.14 * i), f"KL {divergence:.2f}", BLACK)
    return figure


# -- Example 4.6.1 ----------------------------------------------------------------------------------------------------


def bernoulli() -> Data:
    """Compute gradient, Fisher information and natural gradient of the policy of two actions."""
    theta = np.linspace(-6.0, 6.0, 121)

    def at(theta: jax.Array) -> tuple[jax.Array, ...]:
        flat, states = theta[None], jnp.ones(1)
        gradient = gradients.policy_gradient(worked.BERNOULLI, worked.bernoulli, flat)
        fisher = gradients.step_fisher(worked.bernoulli, flat, states)
        return gradient[0], fisher[0, 0], gradients.solve(fisher, gradient)[0]

    gradient, fisher, natural = in_double(jax.jit(jax.vmap(at)))(theta)
    return {"theta": theta, "gradient": gradient, "fisher": fisher, "natural_gradient": natural}


def draw_bernoulli(data: Data) -> Any:
    """Draw the three on a logarithmic scale."""
    figure, [axes] = panels(1, 6.0, 3.8)
    lines = (("gradient", r"$\nabla J$"), ("fisher", "$F$"), ("natural_gradient", r"$F^{-1} \nabla J$"))
    for i, (name, text) in enumerate(lines):
        values = data[name]
        axes.plot(data["theta"], values, linewidth=2, **look(i))
        label(
            axes, (data["theta"][90], values[90] * 2.6 ** (1 if i < 2 else 0.75)), text, look(i)["color"], fontsize=12
        )
    frame(axes, "", r"$\theta$", "")
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 4e2)
    return figure


# -- baselines --------------------------------------------------------------------------------------------------------

BASELINE_SIGNALS = {"return": "whole return", "to-go": "reward-to-go", "action-values": "exact $Q$"}
BASELINES = {"none": "no baseline", "time": "mean of each step", "value": "$V_t(s)$", "optimal": "the best one"}
SMALL_PROCESS = {"n_states": 3, "n_actions": 2, "gamma": 0.9, "horizon": 3}


def baselines() -> Data:
    """Compute the variance of the policy gradient from one trajectory, by signal and baseline."""
    mdp = random_mdp(jax.random.PRNGKey(1), **SMALL_PROCESS)
    # Rewards that are all positive, as many tasks have them, show what a baseline is for.
    mdp = dataclasses.replace(mdp, rewards=mdp.rewards + 3.0)
    theta: Any = np.zeros(mdp.n_states * mdp.n_actions)
    family = families.softmax(mdp)
    exact = gradients.policy_gradient(mdp, family, theta)
    moments = [
        [variances.gradient_moments(mdp, family, theta, signal, baseline) for baseline in BASELINES]
        for signal in BASELINE_SIGNALS
    ]
    return {
        "signals": list(BASELINE_SIGNALS),
        "baselines": list(BASELINES),
        "variance": np.array([[float(one.total) for one in row] for row in moments]),
        "error_of_the_mean": np.array([[np.max(np.abs(one.mean - exact)) for one in row] for row in moments]),
        "squared_gradient": np.asarray(exact @ exact),
    }


def draw_baselines(data: Data) -> Any:
    """Draw a group of bars for each signal."""
    figure, [axes] = panels(1, 7.4, 3.6)
    places = np.arange(len(data["signals"]))
    for i, name in enumerate(data["baselines"]):
        values = data["variance"][:, i]
        bars = axes.bar(
            places + 0.21 * (i - 1.5), values, 0.19, color=(RED, ORANGE, BLUE, GREEN)[i], label=BASELINES[name]
        )
        for bar, value in zip(bars.patches, values, strict=True):
            bar.set_hatch(("", "//", "..", "xx")[i])
            bar.set_edgecolor("white")
            axes.text(bar.get_x() + bar.get_width() / 2, value * 1.06, f"{value:.3g}", ha="center", fontsize=8)
    frame(axes, "", "", "total variance of one trajectory's gradient")
    axes.set_xticks(places, [BASELINE_SIGNALS[signal] for signal in data["signals"]])
    axes.set_yscale("log")
    legend(axes, loc="upper right", ncols=2)
    return figure


FIGURES = (
    Figure(
        name="12.3",
        title="the natural gradient in the ellipse of its constraint",
        source=f"{BOOK}, Figure 12.3",
        caption="The steps that the quadratic divergence allows form an ellipse: here for trajectories of the "
        f"regulator with 10 steps at θ = ({CONSTRAINED_AT[0]}, {CONSTRAINED_AT[1]}), with a bound of "
        f"{CONSTRAINED_BOUND}. Along the gradient the edge comes soon; the natural gradient leads to the point of "
        "the edge where the dotted line of equal promised gain touches it.",
        compute=natural_direction,
        draw=draw_natural_direction,
    ),
    Figure(
        name="sigmoid-policy",
        title="equal steps in the parameter, unequal steps of the policy",
        source=f"{NATURAL_SLIDES}, the figure of two actions",
        caption="A policy of two actions with one parameter, at θ = 4, 2 and 0. Both steps change the parameter by "
        "2. The first hardly changes the policy, the second makes it a coin; the divergences KL(old ‖ new) say how "
        "much.",
        compute=sigmoid_policy,
        draw=draw_sigmoid_policy,
    ),
    Figure(
        name="bernoulli",
        title="gradient, Fisher information and natural gradient of two actions",
        source=f"{NOTES}, Example 4.6.1",
        caption="One decision between two actions, J = 100 π(1) + π(0) with π(1) = 1 / (1 + exp(-θ)), computed "
        "exactly. Gradient and Fisher information vanish together where the policy is nearly certain; their "
        "quotient, the natural gradient, is 99 everywhere.",
        compute=bernoulli,
        draw=draw_bernoulli,
    ),
    Figure(
        name="baselines",
        title="the variance of the policy gradient by signal and baseline",
        source=f"{NOTES}, section 4.4",
        caption="The trace of the covariance of one trajectory's gradient, exactly, from all trajectories of a "
        "process with 3 states, 2 actions, 3 steps and a discount of 0.9 (drawn with seed 1, 3 added to each "
        "reward), at the uniform softmax policy. All have the same mean, the gradient. The best baseline is that of "
        "all functions of step and state.",
        compute=baselines,
        draw=draw_baselines,
    ),
)
