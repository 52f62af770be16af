"""Figures of updates on the simple regulator: where the book's algorithms lead, and what their objectives look like."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jumar.figures.drawing import (
    BLACK,
    BLUE,
    CONTOURS,
    GREEN,
    MARKERS,
    RED,
    frame,
    label,
    legend,
    look,
    optimum,
    panels,
)
from jumar.figures.fields import THETA_1, THETA_2
from jumar.figures.figure import Data, Figure
from jumar.figures.levels import edge, ellipse
from jumar.lab import regulator, regulator_improvement
from jumar.lab.iterated_ascent import ascend
from jumar.lab.local_models import ExactRegulator, Known, RegulatorProcess, Sampled, above_the_mean
from jumar.lab.precision import in_double
from jumar.lab.regulator import Regulator
from jumar.lab.textbook import NaturalPolicyGradient, PolicyGradientUpdate, TrustRegionUpdate
from jumar.lab.texts import BOOK

PROBLEM = Regulator(gamma=0.9)
GRID = np.linspace(-2.2, 0.3, 101), np.linspace(-0.05, 0.85, 73)
DEVIATION = r"$|\theta_2|$ (deviation)"


def utilities() -> Data:
    """Compute the performance of the regulator's policies on a grid, for contours."""
    places = np.stack(np.meshgrid(*GRID), -1)
    worth = in_double(jax.jit(jax.vmap(jax.vmap(lambda theta: regulator.performance(PROBLEM, theta)))))
    return {"theta_1": GRID[0], "theta_2": GRID[1], "utility": worth(places)}


def draw_utilities(axes: Any, data: Data) -> None:
    """Draw contours of the performance, grey, the best parameters in black."""
    # Equal steps of the logarithm of what is lost, as the performance falls steeply away from the best.
    loss = np.log(np.max(data["utility"]) - data["utility"] + 0.02)
    axes.contour(data["theta_1"], data["theta_2"], loss, levels=12, colors=CONTOURS, linewidths=0.7, linestyles="solid")
    optimum(axes, regulator.OPTIMUM)
    frame(axes, "", THETA_1, DEVIATION)
    axes.grid(visible=False)


# -- Figure 12.1 ------------------------------------------------------------------------------------------------------

STARTS = np.array([[-0.1, 0.7], [-1.9, 0.6]])
STEP_FACTOR, UPDATES, ROLLOUTS = 0.2, 15, 10


def limited_gradients() -> Data:
    """Follow sampled gradients that are scaled, and that are clipped, from two places."""
    model = Sampled(RegulatorProcess(PROBLEM), m=ROLLOUTS, signal=above_the_mean)
    updates = {
        "scaled": PolicyGradientUpdate(model, STEP_FACTOR, max_norm=1.0),
        "clipped": PolicyGradientUpdate(model, STEP_FACTOR, bounds=(-1.0, 1.0)),
    }
    paths = {
        name: np.stack([ascend(update, start, jax.random.PRNGKey(0), n=UPDATES).thetas for start in STARTS])
        for name, update in updates.items()
    }
    return {**paths, **utilities()}


def draw_limited_gradients(data: Data) -> Any:
    """Draw the paths over contours of the performance."""
    figure, axes = panels(2, 4.6, 3.7, sharey=True)
    for axis, name in zip(axes, ("scaled", "clipped"), strict=True):
        draw_utilities(axis, data)
        draw_paths(axis, data[name])
        frame(axis, f"{name} gradients", THETA_1, DEVIATION if name == "scaled" else "")
        axis.grid(visible=False)
    return figure


def draw_paths(axes: Any, paths: np.ndarray) -> None:
    """Draw where updates led, with the sign of the second parameter left out: the policy has its size alone."""
    for i, path in enumerate(np.stack([paths[..., 0], np.abs(paths[..., 1])], -1)):
        axes.plot(*path.T, marker=MARKERS[i], markersize=4, linewidth=1.3, **look(i))
        axes.plot(*path[0], MARKERS[i], color=look(i)["color"], markersize=9)
        label(axes, (path[0, 0], path[0, 1] + 0.05), "start", look(i)["color"])
    axes.set_xlim(-2.15, 0.25)
    axes.set_ylim(-0.02, 0.83)


# -- Figure 12.4 ------------------------------------------------------------------------------------------------------

SEARCHED_FROM: Any = np.array([-0.35, 0.35])
SEARCH_BOUND = 1.0
OF_TRAJECTORIES = Known(
    gradient=lambda theta, _: regulator.policy_gradient(PROBLEM, theta),
    fisher=lambda theta, _: regulator.trajectory_fisher(PROBLEM, theta),
    objective=lambda theta, new: regulator_improvement.surrogate_objective(PROBLEM, theta, new),
    constraint=lambda theta, new: regulator_improvement.trajectory_kl(PROBLEM, theta, new),
)
"""The regulator exactly, with the divergence of trajectories as the constraint, which the ellipse approximates."""


def line_search() -> Data:
    """Compute the ellipse, the true constraint and the points of the line search at one place."""
    old = SEARCHED_FROM
    fisher, gradient = (
        in_double(jax.jit(function))(PROBLEM, old)
        for function in (regulator.trajectory_fisher, regulator.policy_gradient)
    )
    search = TrustRegionUpdate(OF_TRAJECTORIES, SEARCH_BOUND)
    updated = search.update(old, jax.random.PRNGKey(0))
    tries = int(updated.shrinks) + 1
    points = old + search.shrink ** np.arange(tries)[:, None] * (np.asarray(updated.whole) - old)
    divergence = in_double(jax.jit(jax.vmap(lambda new: regulator_improvement.trajectory_kl(PROBLEM, old, new))))
    return {
        "theta": old,
        "gradient": gradient,
        "ellipse": old + ellipse(np.asarray(fisher), SEARCH_BOUND),
        "constraint": edge(divergence, old, SEARCH_BOUND, 0.7),
        "points": points,
        "divergences": divergence(points),
        "new_theta": np.asarray(updated.theta),
    }


def draw_line_search(data: Data) -> Any:
    """Draw the ellipse dashed, the true constraint solid, and the points that were tried."""
    figure, [axes] = panels(1, 6.2, 4.0)
    axes.plot(*data["ellipse"].T, color=BLUE, linestyle="--", linewidth=1.8)
    axes.fill(*data["constraint"].T, color=CONTOURS, alpha=0.3, linewidth=0)
    axes.plot(*data["constraint"].T, color=BLACK, linewidth=1.6)
    points = data["points"]
    axes.plot(*np.stack([data["theta"], points[0]]).T, color=RED, linewidth=1.2)
    for i, (point, divergence) in enumerate(zip(points, data["divergences"], strict=True)):
        last = i == len(points) - 1
        axes.plot(*point, "o" if last else "X", color=GREEN if last else RED, markersize=9, zorder=5)
        text = f"{'accepted' if last else 'too far'}: g = {divergence:.2f}"
        side = 1 if last else -1
        place = point[0] + 0.02 * side, point[1] - 0.004 * side
        label(axes, place, text, GREEN if last else RED, ha="left" if last else "right")
    axes.plot(*data["theta"], "o", color=BLACK, markersize=6, zorder=5)
    label(axes, (data["theta"][0] + 0.03, data["theta"][1] + 0.012), r"$\theta$", BLACK, fontsize=12)
    top, right = data["ellipse"][:, 1].argmax(), data["constraint"][:, 1].argmax()
    label(axes, data["ellipse"][top] - (0.0, 0.016), r"$\frac{1}{2} \Delta\theta^T F \Delta\theta = \epsilon$", BLUE)
    label(axes, data["constraint"][right] + (0.0, 0.014), r"$g(\theta, \theta') = \epsilon$", BLACK)
    frame(axes, "", THETA_1, THETA_2)
    return figure


# -- Figure 12.5 ------------------------------------------------------------------------------------------------------

TRUST_REGION_BOUND, TRUST_REGION_UPDATES, TRUST_REGION_ROLLOUTS = 1.0, 12, 50


def trust_region_paths() -> Data:
    """Follow updates of Algorithm 12.5 from two places."""
    update = TrustRegionUpdate(Sampled(RegulatorProcess(PROBLEM), m=TRUST_REGION_ROLLOUTS), TRUST_REGION_BOUND)
    paths = [ascend(update, start, jax.random.PRNGKey(0), n=TRUST_REGION_UPDATES).thetas for start in STARTS]
    return {"paths": np.stack(paths), **utilities()}


def draw_trust_region_paths(data: Data) -> Any:
    """Draw the paths over contours of the performance."""
    figure, [axes] = panels(1, 6.0, 4.2)
    draw_utilities(axes, data)
    draw_paths(axes, data["paths"])
    return figure


# -- Figure 12.7 ------------------------------------------------------------------------------------------------------

COMPARED_AT: Any = np.array([-0.35, 0.35])
COMPARED_BOUND, COMPARED_CLIP, PENALTY = 1.0, 0.2, 2.0


def surrogates() -> Data:
    """Compute three objectives on the way from parameters to those of a natural update."""
    model = ExactRegulator(PROBLEM)
    updated = NaturalPolicyGradient(model, COMPARED_BOUND).update(COMPARED_AT, jax.random.PRNGKey(0))
    share = np.linspace(0.0, 1.0, 61)
    places = COMPARED_AT + share[:, None] * (np.asarray(updated.theta) - COMPARED_AT)

    def at(new: jax.Array) -> tuple[jax.Array, ...]:
        local = model.at(COMPARED_AT, jax.random.PRNGKey(0))
        return local.objective(new), local.clamped(new, COMPARED_CLIP), local.penalised(new, PENALTY)

    unclamped, clamped, penalised = in_double(jax.jit(jax.vmap(at)))(places)
    values = {"unclamped": unclamped, "clamped": clamped, "penalised": penalised}
    return {"share": share, "new_theta": updated.theta, **{name: x - x[0] for name, x in values.items()}}


def draw_surrogates(data: Data) -> Any:
    """Draw the objectives, with a mark at the highest place of each."""
    figure, [axes] = panels(1, 6.2, 3.8)
    names = {"unclamped": "unclamped", "clamped": "clamped", "penalised": "effective TRPO (penalty)"}
    for i, (name, text) in enumerate(names.items()):
        values, best = data[name], int(np.argmax(data[name]))
        axes.plot(data["share"], values, linewidth=2, label=text, **look(i))
        axes.plot(data["share"][best], values[best], MARKERS[i], color=look(i)["color"], markersize=7)
    axes.axhline(0.0, color=BLACK, linewidth=0.8)
    frame(axes, "", r"share of the way from $\theta$ to the natural update", "objective, 0 at " + r"$\theta$")
    legend(axes, loc="upper left")
    return figure


_PROBLEM = f"the simple regulator with {PROBLEM.depth} steps and a discount of {PROBLEM.gamma}"
_STARTS = f"({STARTS[0, 0]}, {STARTS[0, 1]}) and ({STARTS[1, 0]}, {STARTS[1, 1]})"

FIGURES = (
    Figure(
        name="12.1",
        title="scaled gradients against clipped ones",
        source=f"{BOOK}, Figure 12.1",
        caption=f"Plain gradient ascent on {_PROBLEM}, from {_STARTS}: {UPDATES} updates with a step size of "
        f"{STEP_FACTOR}, each with a gradient from {ROLLOUTS} rollouts (seed 0, rewards-to-go minus their mean). "
        "Scaled to a length of at most 1 the gradient keeps its direction; clipped to [-1, 1] in each entry it does "
        "not. Both are short where the gradient itself is. The best parameters are black, and grey lines join "
        "policies of equal performance.",
        compute=limited_gradients,
        draw=draw_limited_gradients,
    ),
    Figure(
        name="12.4",
        title="the ellipse against the true constraint, and a line search",
        source=f"{BOOK}, Figure 12.4",
        caption=f"Around θ = ({SEARCHED_FROM[0]}, {SEARCHED_FROM[1]}) of {_PROBLEM}: dashed, where the quadratic "
        f"divergence of trajectories is {SEARCH_BOUND:g}; shaded, where the divergence itself is at most that. The "
        "natural step ends on the ellipse. Where it is outside of the true constraint, the line search halves it. "
        "All is exact.",
        compute=line_search,
        draw=draw_line_search,
    ),
    Figure(
        name="12.5",
        title="trust-region policy optimization on the regulator",
        source=f"{BOOK}, Figure 12.5",
        caption=f"{TRUST_REGION_UPDATES} updates of Algorithm 12.5 on {_PROBLEM}, from {_STARTS}, each with "
        f"{TRUST_REGION_ROLLOUTS} rollouts (seed 0) and ε = {TRUST_REGION_BOUND:g}. The best parameters are black. "
        "(The book does not define its c = 2.)",
        compute=trust_region_paths,
        draw=draw_trust_region_paths,
    ),
    Figure(
        name="12.7",
        title="surrogate objectives on the way to a natural update",
        source=f"{BOOK}, Figure 12.7",
        caption=f"Three objectives on the way from θ = ({COMPARED_AT[0]}, {COMPARED_AT[1]}) to its natural update "
        f"with ε = {COMPARED_BOUND:g}, for {_PROBLEM}, exactly: unclamped, clamped with {COMPARED_CLIP}, and with "
        f"{PENALTY:g} times the divergence as a penalty. Each is 0 at θ, and marked where it is highest. Unclamped, "
        "it rises all the way.",
        compute=surrogates,
        draw=draw_surrogates,
    ),
)
