"""Figures of single steps of policies: how far, in which geometry, and how much is guaranteed."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jumar.figures.drawing import BLACK, BLUE, CONTOURS, GREEN, MARKERS, RED, arrow, frame, label, legend, look, panels
from jumar.figures.figure import Data, Figure
from jumar.figures.levels import edge
from jumar.lab import dynamic_programming, families, improvement, minorise, steepest, tabular
from jumar.lab.precision import in_double
from jumar.lab.texts import NATURAL_SLIDES, TRPO_SLIDES

# -- a step in parameters against a step in distributions -----------------------------------------------------------------

TWO_STATES = tabular.TabularMDP.of(
    transitions=[[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.1, 0.9]]],
    rewards=[[0.0, 0.2], [0.3, 1.0]],
    initial=[1.0, 0.0],
    gamma=0.9,
)
"""A process with two states, the second of which is better."""
FEATURES = np.array([[[0.0, 0.0], [2.1, 0.0]], [[0.0, 0.0], [0.0, 0.7]]])
"""The two parameters are the logits of action 1 in the two states, in units of which the first is three times as large."""
STEEPEST_AT: Any = np.array([-0.4, -0.6])
RADIUS, DIVERGENCE = 0.5, 0.06


def two_geometries() -> Data:
    """Compute the best steps in a ball of parameters and in one of distributions, and both balls."""
    family = families.linear_softmax(FEATURES)
    old = family(STEEPEST_AT)
    grid = np.linspace(-1.4, 1.0, 61), np.linspace(-2.3, 1.4, 61)

    def worth(flat: jax.Array) -> jax.Array:
        return tabular.performance(TWO_STATES, family(flat))

    def divergence(flat: jax.Array) -> jax.Array:
        return improvement.mean_kl(TWO_STATES, old, family(flat))

    divergences = in_double(jax.jit(jax.vmap(divergence)))
    places = np.stack(np.meshgrid(*grid), -1)
    key = jax.random.PRNGKey(0)
    in_ball = steepest.best_in_ball(TWO_STATES, family, STEEPEST_AT, RADIUS, key, starts=2)
    in_divergence = steepest.best_in_divergence(TWO_STATES, family, STEEPEST_AT, DIVERGENCE, key, starts=2)
    return {
        "theta": STEEPEST_AT,
        "theta_1": grid[0],
        "theta_2": grid[1],
        "performance": in_double(jax.jit(jax.vmap(worth)))(places.reshape(-1, 2)).reshape(places.shape[:2]),
        "equal_divergence": edge(divergences, STEEPEST_AT, DIVERGENCE, 4.0),
        "step_in_parameters": in_ball.step,
        "step_in_distributions": in_divergence.step,
        "gains": np.array([in_ball.gain, in_divergence.gain]),
        "divergences": divergences(STEEPEST_AT + np.stack([in_ball.step, in_divergence.step])),
    }


def draw_two_geometries(data: Data) -> Any:
    """Draw both balls with their best steps over contours of the performance."""
    figure, [axes] = panels(1, 4.6, 5.4)
    axes.contour(data["theta_1"], data["theta_2"], data["performance"], 16, colors=CONTOURS, linewidths=0.8)
    angles = np.linspace(0.0, 2.0 * np.pi, 181)
    ball = data["theta"] + RADIUS * np.stack([np.cos(angles), np.sin(angles)], -1)
    for points, colour, line in ((ball, RED, "--"), (data["equal_divergence"], BLUE, "-")):
        axes.fill(*points.T, color=colour, alpha=0.1, linewidth=0)
        axes.plot(*points.T, color=colour, linestyle=line, linewidth=1.8)
    for name, colour in (("step_in_parameters", RED), ("step_in_distributions", BLUE)):
        arrow(axes, data["theta"], data["theta"] + data[name], colour)
    axes.plot(*data["theta"], "o", color=BLACK, markersize=6, zorder=6)
    gains, divergences = data["gains"], data["divergences"]
    texts = (
        f"in parameters: +{gains[0]:.2f}\n(KL {divergences[0]:.2f})",
        f"in distributions: +{gains[1]:.2f}\n(KL {divergences[1]:.2f})",
    )
    label(axes, data["theta"] + data["step_in_parameters"] + (0.04, -0.25), texts[0], RED, ha="left")
    label(axes, data["theta"] + data["step_in_distributions"] + (0.04, 0.1), texts[1], BLUE, ha="left")
    frame(axes, "", r"$\theta_1$", r"$\theta_2$")
    axes.grid(visible=False)
    axes.set_aspect("equal")
    axes.set_xlim(-1.4, 1.0)
    axes.set_ylim(-2.3, 1.4)
    return figure


# -- minorise and maximise ------------------------------------------------------------------------------------------------

SHORT_SIGHTED = tabular.TabularMDP.of(TWO_STATES.transitions, TWO_STATES.rewards, TWO_STATES.initial, gamma=0.3)
"""The same process with a discount at which the bound's constant is small enough to be drawn."""
FIRST, SHOWN, ROUNDS = -2.0, 3, 40


def minorants() -> Data:
    """Compute J and its lower bounds along one parameter, each from the best place of the one before."""
    family = families.linear_softmax(np.array([[[0.0], [1.0]], [[0.0], [1.0]]]))
    theta = np.linspace(-3.0, 1.0, 1201)

    def worth(theta: jax.Array) -> jax.Array:
        return tabular.performance(SHORT_SIGHTED, family(theta[None]))

    def minorant(old: jax.Array, theta: jax.Array) -> jax.Array:
        return improvement.max_kl_bound(SHORT_SIGHTED, family(old[None]), family(theta[None]))

    performance = in_double(jax.jit(jax.vmap(worth)))(theta)
    bound = in_double(jax.jit(jax.vmap(minorant, (None, 0))))
    places, curves = [FIRST], []
    for _ in range(SHOWN):
        values = bound(np.asarray(places[-1]), theta)
        curves.append(np.interp(places[-1], theta, performance) + values)
        places.append(float(theta[np.argmax(values)]))
    uniform = tabular.Categorical(np.zeros((2, 2)))  # type: ignore[arg-type]
    ascents = {name: minorise.minorise_maximise(TWO_STATES, uniform, ROUNDS, name) for name in minorise.PENALTIES}
    best = tabular.performance(TWO_STATES, dynamic_programming.optimal_policy(TWO_STATES))
    return {
        "theta": theta,
        "performance": performance,
        "minorants": np.stack(curves),
        "places": np.array(places),
        "ascent_max": ascents["max"].performance,
        "ascent_mean": ascents["mean"].performance,
        "best": np.asarray(best),
    }


def draw_minorants(data: Data) -> Any:
    """Draw the minorants on the left, and J over many rounds on the right."""
    figure, axes = panels(2, 4.8, 3.7)
    theta, worth = data["theta"], data["performance"]
    axes[0].plot(theta, worth, color=BLACK, linewidth=2)
    for i, (place, curve) in enumerate(zip(data["places"], data["minorants"], strict=False)):
        axes[0].plot(theta, curve, linewidth=1.6, **look(i))
        axes[0].plot(place, np.interp(place, theta, worth), MARKERS[i], color=look(i)["color"], markersize=7, zorder=4)
        top = data["places"][i + 1]
        axes[0].plot(top, np.interp(top, theta, curve), "|", color=look(i)["color"], markersize=10)
    last = data["places"][-1]
    axes[0].plot(last, np.interp(last, theta, worth), "o", color=BLACK, markersize=5, zorder=4)
    low, high = worth.min(), worth.max()
    axes[0].set_ylim(low - 0.2 * (high - low), high + 0.05 * (high - low))
    label(axes[0], (0.2, np.interp(0.2, theta, worth) + 0.03), "$J$", BLACK, fontsize=11)
    frame(axes[0], "minorants that touch $J$ where they begin", r"$\theta$, with $\pi(1) = \sigma(\theta)$", "$J$")
    names = {"max": r"$L - C\, \max KL$", "mean": r"$L - C \sqrt{E\, KL}$"}
    for i, (name, text) in enumerate(names.items()):
        values = data[f"ascent_{name}"]
        axes[1].plot(np.arange(len(values)), values, linewidth=2, label=text, **look(i))
    axes[1].axhline(data["best"], color=GREEN, linewidth=1.4, linestyle=":", label="best policy")
    legend(axes[1], loc="lower right")
    frame(axes[1], "small steps: a discount of 0.9", "round", "$J$")
    return figure


FIGURES = (
    Figure(
        name="two-geometries",
        title="the best step in parameters and in distributions",
        source=f"{NATURAL_SLIDES}, steepest ascent in parameter space and in distribution space",
        caption="A process with two states and a softmax policy whose first parameter counts three times as much as "
        f"its second. Red: all parameters within {RADIUS}, and the best step among them. Blue: all policies with a "
        f"mean divergence of at most {DIVERGENCE}, and the best step among those. Neither is linearised. Grey lines "
        "join policies of equal performance; the labels give what is gained.",
        compute=two_geometries,
        draw=draw_two_geometries,
    ),
    Figure(
        name="minorants",
        title="minorise and maximise: lower bounds that touch",
        source=f"{TRPO_SLIDES}, the figure of minorise-maximise",
        caption="Left: the performance of a policy with one parameter in a process of two states with a discount of "
        "0.3, and the bound L - C max KL from three policies, each the best place of the bound before (ticks). The "
        f"bound touches J where it begins, so J never falls. Right: {ROUNDS} rounds over all policies of the process "
        "with a discount of 0.9, from the uniform one, with two bounds: what is guaranteed is little, so the steps "
        "are small.",
        compute=minorants,
        draw=draw_minorants,
    ),
)
