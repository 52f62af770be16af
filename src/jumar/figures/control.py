"""Figures of tasks that are known exactly, and of what approximate policy iteration does in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jumar.figures.drawing import BLACK, BLUE, RED, frame, label, legend, look, panels
from jumar.figures.figure import Data, Figure
from jumar.lab import worlds
from jumar.lab.conservative_iteration import conservative_policy_iteration
from jumar.lab.dynamic_programming import exact, optimal_action_values, policy_iteration, training_weights
from jumar.lab.fitted_iteration import FORK, FORK_FEATURES, FORK_POLICY, fitted_step, least_squares
from jumar.lab.grids import CLIFF, FOUR_ROOMS, MOVES, cells, parse_map
from jumar.lab.tabular import action_values
from jumar.lab.texts import NOTES
from jumar.report.style import new_figure

ROUNDS = 6


def fitted_iteration() -> Data:
    """Compute one step of fitted policy iteration, and several rounds of it and of two others."""
    fit = least_squares(FORK_FEATURES)
    step = fitted_step(FORK, FORK_POLICY, fit)
    visits: Any = np.asarray(step.visits)
    values: Any = np.asarray(action_values(FORK, FORK_POLICY))
    conservative = conservative_policy_iteration(FORK, FORK_POLICY, ROUNDS, fit)
    data: dict[str, Any] = {
        "states": ["fork", "road", "marsh"],
        "visits_old": visits[0, 1],
        "visits_new": visits[1, 1],
        "action_values": values[1, 1:],
        "fitted_values": np.asarray(fit(values, training_weights(FORK, FORK_POLICY)))[1, 1:],
        "performance": step.performance,
        "bound": step.bound,
        "worst_advantage": step.worst_advantage,
        "shift": step.shift,
        "rounds": np.arange(ROUNDS + 1),
        "conservative": conservative.performance,
    }
    for name, one in (("fitted", fit), ("exact", exact)):
        _, values = policy_iteration(FORK, FORK_POLICY, ROUNDS + 1, one)
        data[name] = np.asarray(values)[:, 0] @ np.asarray(FORK.initial)
    return data


def draw_fitted_iteration(data: Data) -> Any:
    """Draw the visits, the values at the second step, and the performance by round."""
    figure, axes = panels(3, 3.5, 3.3)
    places = np.arange(2)
    for i, (name, colour) in enumerate((("old", BLUE), ("new", RED))):
        bars = axes[0].bar(
            places + 0.4 * i - 0.2, data[f"visits_{name}"][1:], 0.36, color=colour, label=f"{name} policy"
        )
        for bar in bars.patches if i else ():
            bar.set_hatch("//")
            bar.set_edgecolor("white")
    frame(axes[0], "where the second step is", "", "probability")
    axes[0].set_xticks(places, data["states"][1:])
    axes[0].set_ylim(0.0, 1.25)
    legend(axes[0], loc="upper center", ncols=2)
    names = ["run, road", "walk, road", "run, marsh", "walk, marsh"]
    true, fitted = data["action_values"].ravel(), data["fitted_values"].ravel()
    axes[1].axhline(0.0, color=BLACK, linewidth=0.8)
    axes[1].plot(np.arange(4), true, "o", color=BLACK, markersize=8, linestyle="none", label="true")
    axes[1].plot(np.arange(4), fitted, "X", color=RED, markersize=8, linestyle="none", label="fitted to the old policy")
    frame(axes[1], "what actions are worth there", "", "$Q$")
    axes[1].set_xticks(np.arange(4), [name.replace(", ", "\n") for name in names], fontsize=8)
    legend(axes[1], loc="center left")
    for i, name in enumerate(("exact", "conservative", "fitted")):
        axes[2].plot(
            data["rounds"], data[name], marker="os^"[i], markersize=5, linewidth=1.7, label=name, **look((2, 0, 1)[i])
        )
    axes[2].axhline(data["bound"], color=BLACK, linewidth=1.0, linestyle=":")
    label(axes[2], (2.5, data["bound"] + 0.7), r"bound of the first step: $J - H |\Delta_\infty|$", BLACK)
    frame(axes[2], "performance by round", "round", "$J$")
    axes[2].legend(frameon=False, fontsize=9, loc="center right", bbox_to_anchor=(1.0, 0.36))
    return figure


# -- grid worlds --------------------------------------------------------------------------------------------------------

WORLDS = {
    "rooms": (FOUR_ROOMS, worlds.four_rooms(), "four rooms, slip 0.1"),
    "cliff": (CLIFF, worlds.cliff_walk(), "cliff walk, no slips"),
    "slippery": (CLIFF, worlds.cliff_walk(slip=0.2), "cliff walk, slip 0.2"),
}


def grid_worlds() -> Data:
    """Compute the optimal values and policies of three worlds, on their maps; NaN and -1 where there is no state."""
    data: dict[str, Any] = {}
    for name, (rows, mdp, _) in WORLDS.items():
        lines, values = parse_map(rows), np.asarray(optimal_action_values(mdp))
        shape = len(lines), len(lines[0])
        worth, action = np.full(shape, np.nan), np.full(shape, -1)
        for (i, j), row in zip(cells(rows), values, strict=True):
            worth[i, j] = row.max()
            if lines[i][j] in ".S":
                action[i, j] = row.argmax()
            else:  # it ends there
                worth[i, j] = np.nan
        data |= {f"{name}_values": worth, f"{name}_actions": action, f"{name}_map": lines}
    return data


def draw_grid_worlds(data: Data) -> Any:
    """Draw values as shades, and the optimal actions as arrows."""
    figure = new_figure(10.4, 4.3)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.0, 1.25])
    for name, place in (("rooms", grid[:, 0]), ("cliff", grid[0, 1]), ("slippery", grid[1, 1])):
        axes = figure.add_subplot(place)
        values, actions, lines = data[f"{name}_values"], data[f"{name}_actions"], data[f"{name}_map"]
        frame(axes, WORLDS[name][2], "", "")
        axes.grid(visible=False)
        axes.set_xticks(())
        axes.set_yticks(())
        axes.spines["bottom"].set_visible(False)
        shades = axes.pcolormesh(values, cmap="cividis", edgecolors="white", linewidth=0.4)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        figure.colorbar(shades, ax=axes, shrink=0.8, label=r"$V^*$")
        middle = 0.5 * (np.nanmin(values) + np.nanmax(values))
        bright = values > middle
        for i, j in np.ndindex(*values.shape):
            colour = BLACK if bright[i, j] or lines[i][j] == "G" else "white"
            if lines[i][j] in "SG":
                axes.text(
                    j + 0.78, i + 0.28, lines[i][j], color=colour, fontsize=8, weight="bold", ha="center", va="center"
                )
        if "C" in lines[-1]:
            axes.text(len(lines[-1]) / 2, len(lines) - 0.5, "cliff", fontsize=8, ha="center", va="center")
        for some, colour in ((bright, BLACK), (~bright, "white")):
            i, j = np.nonzero(some & (actions >= 0))
            up, across = np.array(MOVES)[actions[i, j]].T
            axes.quiver(
                j + 0.5, i + 0.5, 0.6 * across, 0.6 * up, color=colour, pivot="mid", angles="xy", scale_units="xy", scale=1.0,
                units="xy", width=0.06, headwidth=4, headlength=4.5, headaxislength=4,
            )  # fmt: skip
    return figure


FIGURES = (
    Figure(
        name="grid-worlds",
        title="optimal values and policies of grid worlds",
        source="Sutton and Barto, Reinforcement Learning, example 6.6; Sutton et al. 1999, the four rooms",
        caption="Exact optimal values (shades) and optimal actions (arrows), by policy iteration. Left: four rooms, "
        "1 at the goal G, a discount of 0.97; a step goes to a side with a probability of 0.1. Right: the cliff "
        "walk, -1 a step and -100 for a fall, a discount of 0.99: along the edge where steps never slip, far from "
        "it where they do with a probability of 0.2.",
        compute=grid_worlds,
        draw=draw_grid_worlds,
    ),
    Figure(
        name="fitted-iteration",
        title="fitted policy iteration makes a policy worse",
        source=f"{NOTES}, section 4.6.1",
        caption="At a fork a policy goes left to a road 19 times out of 20, else right to a marsh; in the second "
        "step it runs or walks. Values are fitted to its data by features that cannot tell road from marsh, so "
        "running seems good everywhere. The greedy policy goes to the marsh, where there were hardly any data, and "
        "runs: J falls from 0.525 to -4. Right: rounds of exact, fitted and conservative policy iteration (the last "
        "mixes in the fitted greedy policy only as far as a gain is sure).",
        compute=fitted_iteration,
        draw=draw_fitted_iteration,
    ),
)
