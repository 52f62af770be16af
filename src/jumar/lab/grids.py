r"""Grid worlds: a map as text becomes a tabular process, and its values and policies become pictures of text.

==========  ===============================================================================================
letter      cell
==========  ===============================================================================================
``.``       floor
``S``       a start; of several each is equally likely
``G``       a goal: the episode ends there
``P``       a pit: the episode ends there, too
``C``       a cliff: who falls off is back at a start
``#``       a wall
==========  ===============================================================================================

The states are the cells without walls and cliffs, row by row. The actions are 0 up, 1 right, 2 down and 3 left. A step against
a wall or over the edge of the map leads nowhere. With probability ``slip`` it goes to one of the two sides instead, to each
with half of that. Each step is paid by the cell that it leads to.

The rewards of a process are those of a state and an action, so a step that may slip is paid the mean over where it may lead.
Returns have the same mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jumar.errors import UsageError
from jumar.lab.arguments import ArrayLike
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

Map = str | Sequence[str]
"""The rows of a map: a list of texts, or one text with line breaks or slashes between them, ``"S.G/.#P"`` say."""

CLIFF = "............/............/............/SCCCCCCCCCCG"
"""Sutton and Barto 2018, *Reinforcement Learning*, example 6.6: the cliff walk."""

FOUR_ROOMS = (
    "#############/#S....#.....#/#.....#.....#/#...........#/#.....#.....#/#.....#.....#/##.####.....#/"
    "#.....###.###/#.....#.....#/#.....#.....#/#...........#/#.....#....G#/#############"
)
"""The rooms of Sutton, Precup and Singh 1999, *Between MDPs and Semi-MDPs*, from one corner to the opposite one."""

FOUR_BY_THREE = "...G/.#.P/S..."
"""Russell and Norvig, *Artificial Intelligence*, section 17.1."""

FROZEN_LAKE = "S.../.P.P/...P/P..G"
"""The map of Gymnasium's FrozenLake-v1.

With ``slip=2/3`` and ``pit_reward=0`` it is the same process; Gymnasium numbers the actions left, down, right, up.
"""

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""What each action adds to row and column: up, right, down, left."""

ARROWS = "↑→↓←"
"""The letters of the actions in a picture."""


def parse_map(rows: Map) -> list[str]:
    """Return the rows of a map.

    Raises:
        UsageError: there are none, they are not equally long, have a letter that means nothing, or there is no start.
    """
    if not isinstance(rows, (str, list, tuple)) or not all(isinstance(row, str) for row in rows):
        raise UsageError(f"rows={rows!r} is not a map; it must be a text, or a list of texts, one for each row.")
    lines = rows.replace("/", "\n").split() if isinstance(rows, str) else list(rows)
    if not lines or not lines[0]:
        raise UsageError("the map is empty; it needs rows of the letters . S G P C and #.")
    for number, line in enumerate(lines):
        if len(line) != len(lines[0]):
            raise UsageError(f"row {number} of the map, {line!r}, has {len(line)} cells; row 0 has {len(lines[0])}.")
        unknown = sorted(set(line) - set(".SGPC#"))
        if unknown:
            raise UsageError(f"row {number} of the map has the letter {unknown[0]!r}; cells are . S G P C and #.")
    if not any("S" in line for line in lines):
        raise UsageError("the map has no start; mark at least one cell with S.")
    return lines


def cells(rows: Map) -> list[tuple[int, int]]:
    """Return row and column of each state."""
    return [(i, j) for i, line in enumerate(parse_map(rows)) for j, letter in enumerate(line) if letter not in "#C"]


def grid_world(
    rows: Map,
    *,
    slip: float = 0.0,
    gamma: float = 0.99,
    horizon: int | None = None,
    step_reward: float = 0.0,
    goal_reward: float = 1.0,
    pit_reward: float = -1.0,
    cliff_reward: float = -100.0,
) -> TabularMDP:
    """Return the process of a map.

    Args:
        rows: the map; see the module.
        slip: the probability that a step goes to a side, in [0, 1].
        gamma: discount.
        horizon: how many steps there are; None for no end but goals and pits.
        step_reward: paid for a step that leads to floor or a start, also for one that leads nowhere.
        goal_reward: paid for the step to a goal.
        pit_reward: paid for the step into a pit.
        cliff_reward: paid for the step off a cliff.

    Raises:
        UsageError: the map is not one (:func:`parse_map`), or a number is out of range.
    """
    lines = parse_map(rows)
    check_probability("slip", slip)
    check_rewards(step_reward=step_reward, goal_reward=goal_reward, pit_reward=pit_reward, cliff_reward=cliff_reward)
    paid = {".": step_reward, "S": step_reward, "G": goal_reward, "P": pit_reward, "C": cliff_reward}
    places = cells(lines)
    number = {place: state for state, place in enumerate(places)}
    starts = np.array([lines[i][j] == "S" for i, j in places], np.float64)
    initial = starts / starts.sum()
    transitions, rewards = np.zeros((len(places), 4, len(places))), np.zeros((len(places), 4))
    for state, place in enumerate(places):
        if lines[place[0]][place[1]] in "GP":
            transitions[state, :, state] = 1.0
            continue
        for action in range(4):
            for turn, share in ((0, 1.0 - slip), (1, 0.5 * slip), (-1, 0.5 * slip)):
                i, j = _reached(lines, place, (action + turn) % 4)
                letter = lines[i][j]
                rewards[state, action] += share * paid[letter]
                if letter == "C":
                    transitions[state, action] += share * initial
                else:
                    transitions[state, action, number[i, j]] += share
    return TabularMDP.of(transitions, rewards, initial, gamma, horizon)


def _reached(lines: list[str], place: tuple[int, int], action: int) -> tuple[int, int]:
    i, j = place[0] + MOVES[action][0], place[1] + MOVES[action][1]
    inside = 0 <= i < len(lines) and 0 <= j < len(lines[0])
    return (i, j) if inside and lines[i][j] != "#" else place


def check_probability(name: str, value: float) -> None:
    """Refuse a number that is not a probability.

    Raises:
        UsageError: it is not in [0, 1].
    """
    if not _is_number(value) or not 0.0 <= value <= 1.0:
        raise UsageError(f"{name}={value} must be a probability, in [0, 1].")


def check_rewards(**rewards: float) -> None:
    """Refuse rewards, given by their names, that are not finite numbers.

    Raises:
        UsageError: one is not.
    """
    for name, value in rewards.items():
        if not _is_number(value):
            raise UsageError(f"{name}={value} must be a finite number.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# -- pictures ---------------------------------------------------------------------------------------------------------


def arrows(rows: Map, policy: Categorical) -> str:
    """Return a picture of the policy ``[S, A]``: the most likely action of each state, and ``+`` where several are so.

    Raises:
        UsageError: the policy is not one of the map's states, or it depends on time: then take one step of its logits.
    """
    lines = parse_map(rows)
    places = cells(lines)
    probs = np.asarray(policy.probs)
    if probs.shape != (len(places), len(MOVES)):
        raise UsageError(
            f"a policy of shape {probs.shape} does not fit the map; it must be {(len(places), len(MOVES))}."
        )
    picture = [list(line) for line in lines]
    for (i, j), chances in zip(places, probs, strict=True):
        if lines[i][j] in ".S":
            best = np.flatnonzero(chances > chances.max() - 1e-6)
            picture[i][j] = ARROWS[best[0]] if len(best) == 1 else "+"
    return "\n".join("".join(line) for line in picture)


def numbers(rows: Map, values: ArrayLike, digits: int = 2) -> str:
    """Return a table of the map with the values ``[S]`` of its states; walls and cliffs keep their letters.

    Raises:
        UsageError: the values are not those of the map's states.
    """
    lines = parse_map(rows)
    places = cells(lines)
    values = np.asarray(values)
    if values.shape != (len(places),):
        raise UsageError(f"values of shape {values.shape} do not fit the map; they must be {(len(places),)}.")
    # Adding 0 makes 0 of -0, which rounding would show as such.
    texts = {
        place: f"{round(value, digits) + 0.0:.{digits}f}" for place, value in zip(places, values.tolist(), strict=True)
    }
    width = max(map(len, texts.values()))
    return "\n".join(
        " ".join(texts.get((i, j), letter).rjust(width) for j, letter in enumerate(line))
        for i, line in enumerate(lines)
    )
