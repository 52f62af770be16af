r"""The game 2048 as a compiled environment: rewards that differ by orders of magnitude, and moves that are not always legal.

Tiles with powers of two lie on a board of 4 x 4. A move pushes all of them to one side. Two equal tiles that meet become one
with their sum, each tile at most once in a move, those nearest to that side first. Then a new tile appears on an empty cell:
a 2, or with probability 0.1 a 4. A move that would change nothing is illegal; the game ends where no move is legal.

The reward of a move is the sum of the tiles that it made, from 0 to tens of thousands: the problem for which Kochenderfer,
Wheeler and Wray, *Algorithms for Decision Making*, section 12.1, scale or clip gradients.

Boards are arrays ``[..., 4, 4]`` of int32 with the logarithms of the tiles to base 2, and 0 for an empty cell. All functions
are dense arithmetic without loops over cells, so that they are mapped over copies at full speed.

Source of the rules: Cirulli 2014, *2048*, https://github.com/gabrielecirulli/2048.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.errors import UsageError, unknown

SIDE = 4
"""Cells along each side of the board."""

LARGEST = 17
"""The logarithm of the largest tile that can be made on 16 cells, 131072."""

ACTIONS = ("up", "right", "down", "left")
"""What the actions 0 to 3 mean."""

OBSERVATIONS = ("one-hot", "log2")
"""What the setting ``observation`` may be."""


class Game2048Params(NamedTuple):
    """The numbers of the game."""

    four_probability: float = 0.1
    """Probability that a new tile is a 4."""


class Game2048State(NamedTuple):
    """The board, and the number of moves made in the episode."""

    board: jax.Array
    time: jax.Array


@dataclass(frozen=True)
class Game2048:
    """2048-v0: push the tiles of a board together, up (0), right (1), down (2) or left (3).

    Observation: a Dict of ``board`` and ``action_mask``, which is 1 for legal moves and all 0 where the game has ended. With
    ``observation="one-hot"`` the board is MultiDiscrete (4, 4), which networks see as one-hot, 288 entries; with ``"log2"`` it
    is a Box (4, 4) of numbers from 0 to 17. Reward: the sum of the merged tiles. An illegal move, which no masked policy
    makes, changes nothing and is worth 0. An episode is cut after ``max_episode_steps`` moves; a game with a tile of 32768
    has fewer than 25,000.

    Raises:
        UsageError: a setting is out of range.
    """

    observation: str = "one-hot"
    max_episode_steps: int = 25_000

    def __post_init__(self) -> None:
        if self.observation not in OBSERVATIONS:
            raise unknown("observation of Game2048", str(self.observation), OBSERVATIONS)
        limit = self.max_episode_steps
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise UsageError(f"Game2048: max_episode_steps={limit!r} must be a whole number of at least 1.")

    @property
    def observation_space(self) -> spaces.Dict:
        """``board`` as the setting says, and ``action_mask``, MultiBinary (4,)."""
        board: spaces.Space[Any] = spaces.MultiDiscrete(np.full((SIDE, SIDE), LARGEST + 1))
        if self.observation == "log2":
            board = spaces.Box(0.0, LARGEST, (SIDE, SIDE), np.float32)
        return spaces.Dict({"board": board, "action_mask": spaces.MultiBinary(len(ACTIONS))})

    @property
    def action_space(self) -> spaces.Discrete:
        """Four moves; see :data:`ACTIONS`."""
        return spaces.Discrete(len(ACTIONS))

    @property
    def params(self) -> Game2048Params:
        """A 4 with probability 0.1."""
        return Game2048Params()

    def reset(self, key: jax.Array, params: Game2048Params) -> tuple[Game2048State, dict[str, jax.Array]]:
        """Put two tiles on an empty board."""
        first, second = jax.random.uniform(key, (2, 2), jnp.float32)
        board = add_tile(jnp.zeros((SIDE, SIDE), jnp.int32), first, params.four_probability)
        board = add_tile(board, second, params.four_probability)
        return Game2048State(board, jnp.zeros((), jnp.int32)), self._observed(board, legal_moves(board))

    def step(
        self, key: jax.Array, state: Game2048State, action: jax.Array, params: Game2048Params
    ) -> tuple[Game2048State, dict[str, jax.Array], jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """Push the tiles, and add one if anything has moved."""
        moved, reward = move(state.board, action)
        numbers = jax.random.uniform(key, (2,), jnp.float32)
        board = jnp.where(jnp.any(moved != state.board), add_tile(moved, numbers, params.four_probability), moved)
        legal, time = legal_moves(board), state.time + 1
        terminated, truncated = ~jnp.any(legal), time >= self.max_episode_steps
        return Game2048State(board, time), self._observed(board, legal), reward, terminated, truncated, {}

    def _observed(self, board: jax.Array, legal: jax.Array) -> dict[str, jax.Array]:
        seen = board.astype(jnp.float32) if self.observation == "log2" else board
        return {"board": seen, "action_mask": legal.astype(jnp.int8)}


def move(board: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the board after a move, without a new tile, and the sum of the tiles that it made, float32.

    Args:
        board: ``[..., 4, 4]``.
        action: ``[...]``; see :data:`ACTIONS`.
    """
    vertical = ((action == 0) | (action == 2))[..., None, None]
    backward = ((action == 1) | (action == 2))[..., None, None]
    lines = jnp.where(vertical, jnp.swapaxes(board, -1, -2), board)
    lines = jnp.where(backward, lines[..., ::-1], lines)
    lines, made = slide(lines)
    lines = jnp.where(backward, lines[..., ::-1], lines)
    return jnp.where(vertical, jnp.swapaxes(lines, -1, -2), lines), jnp.sum(made, -1)


def slide(lines: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Push lines ``[..., 4]`` of tiles to the left; return them, and the sum of the tiles that each made, float32 ``[...]``.

    ``[2, 2, 2, 2]`` becomes ``[4, 4, 0, 0]``, and ``[4, 2, 2, 0]`` becomes ``[4, 4, 0, 0]``: what was just made is not merged
    again.
    """
    a, b, c, d = _compacted(*jnp.moveaxis(lines, -1, 0))
    # Of the three pairs of neighbours, the middle one is merged only if the first is not, and the last one only if the middle
    # one is not. No pair of empty cells is merged.
    first = (a == b) & (a > 0)
    middle = (b == c) & (b > 0) & ~first
    last = (c == d) & (c > 0) & ~middle
    merged = (
        a + first,
        jnp.where(first, c + last, b + middle),
        jnp.where(first, jnp.where(last, 0, d), jnp.where(middle, d, c + last)),
        jnp.where(first | middle | last, 0, d),
    )
    made = sum(jnp.where(pair, jnp.left_shift(2, tile), 0) for pair, tile in ((first, a), (middle, b), (last, c)))
    return jnp.stack(merged, -1), jnp.asarray(made, jnp.float32)


def _compacted(*cells: jax.Array) -> list[jax.Array]:
    """Return the four cells of a line with the empty ones at its end: a sorting network, which keeps the order of tiles."""
    line = list(cells)
    for i in (0, 1, 2, 0, 1, 0):
        empty = line[i] == 0
        line[i], line[i + 1] = jnp.where(empty, line[i + 1], line[i]), jnp.where(empty, 0, line[i + 1])
    return line


def legal_moves(board: jax.Array) -> jax.Array:
    """Return which moves would change the board ``[..., 4, 4]``: ``[..., 4]`` booleans in the order of :data:`ACTIONS`.

    A move is legal if somewhere a tile has an empty cell before it, or an equal tile beside it.
    """
    flags = []
    for lines in (board, jnp.swapaxes(board, -1, -2)):
        near, far = lines[..., :-1], lines[..., 1:]
        equal = (near == far) & (near > 0)
        flags.append(jnp.any(equal | ((near == 0) & (far > 0)), (-2, -1)))  # to the left, or up
        flags.append(jnp.any(equal | ((near > 0) & (far == 0)), (-2, -1)))  # to the right, or down
    left, right, up, down = flags
    return jnp.stack([up, right, down, left], -1)


def add_tile(board: jax.Array, numbers: jax.Array, four_probability: jax.Array | float) -> jax.Array:
    """Return the board ``[4, 4]`` with a new tile on one of its empty cells, all alike likely; a full board stays as it is.

    Args:
        board: the board.
        numbers: ``[2]``, uniform in [0, 1): for the cell, and for the tile.
        four_probability: the probability of a 4.
    """
    empty = (board == 0).reshape(-1)
    rank = jnp.floor(numbers[0] * jnp.sum(empty)).astype(jnp.int32)
    chosen = empty & (jnp.cumsum(empty) - 1 == rank)
    tile = jnp.where(numbers[1] < four_probability, 2, 1)
    return jnp.where(chosen.reshape(board.shape), tile, board)
