"""How episodes end on the way from environments to what is learnt from: successors, resets, and the replay memory."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.envs.compiled import reset_batch, step_batch
from jumar.envs.host import SerialEnvironments
from jumar.experience.replay import Replay
from jumar.experience.rewards import NormalisedRewards
from jumar.policies.observations import Encoder
from jumar.trajectory import Trajectory
from jumar.verification.compare import gap
from jumar.verification.registry import check

SEEN = spaces.Box(-100.0, 100.0, (1,), np.float32)
FIRST = 50.0
"""What is observed after a reset; a step adds 1."""
LIMIT = 3
"""Episodes end after so many steps."""


@dataclass(frozen=True)
class _Counter:
    """A compiled environment that counts steps, and is cut, or terminates where the action is 1."""

    observation_space = SEEN
    action_space = spaces.Discrete(2)
    params = ()

    def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
        first = jnp.full((1,), FIRST, jnp.float32)
        return first, first

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        state = state + 1.0
        over = state[0] >= FIRST + LIMIT
        return state, state, jnp.ones(()), over & (action == 1), over & (action == 0), {}


class _HostCounter(gym.Env[np.ndarray, Any]):
    """The same for Python."""

    observation_space = SEEN
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._seen = FIRST
        return np.array([self._seen], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._seen += 1.0
        over = self._seen >= FIRST + LIMIT
        return np.array([self._seen], np.float32), 1.0, bool(over and action == 1), bool(over and action == 0), {}


WANTED = {
    "observations": [[FIRST + 1.0] * 2, [FIRST + 2.0] * 2, [FIRST] * 2, [FIRST + 1.0] * 2],
    "successors": [[FIRST + 1.0] * 2, [FIRST + 2.0] * 2, [FIRST + 3.0] * 2, [FIRST + 1.0] * 2],
    "terminated": [[0, 0], [0, 0], [0, 1], [0, 0]],
    "truncated": [[0, 0], [0, 0], [1, 0], [0, 0]],
}
"""What four steps of two environments give, one of which is cut, while the other terminates."""


def _differences(found: list[Any]) -> float:
    worst = 0.0
    for name, wanted in WANTED.items():
        rows = np.stack([np.asarray(getattr(step, name), np.float64).reshape(2) for step in found])
        worst = max(worst, gap(rows, wanted))
    return worst


@check(
    "experience/compiled-ends",
    "successors and next observations of compiled environments at both kinds of ends",
    0.0,
    True,
)
def compiled_ends() -> float:
    @jax.jit
    def four(key: Any) -> Any:
        states, _ = reset_batch(_Counter(), (), key, 2)
        found = []
        for _ in range(4):
            states, step = step_batch(_Counter(), (), key, states, jnp.asarray([0, 1]))
            found.append(step)
        return found

    return _differences(four(np.zeros(2, np.uint32)))


@check("experience/host-ends", "the same of environments in Python", 0.0, quick=True)
def host_ends() -> float:
    environments = SerialEnvironments([_HostCounter] * 2, "counter")
    try:
        environments.reset([0, 1])
        return _differences([environments.step(np.array([0, 1])) for _ in range(4)])
    finally:
        environments.close()


STEPS, ENVS, GAMMA, N_STEPS, SLOTS, BLOCK = 12, 2, 0.9, 3, 9, 6


@functools.cache
def _trajectory() -> Trajectory:
    """Return steps whose observations, successors and rewards all differ; some end."""
    draw = np.random.default_rng(7)
    shape = STEPS, ENVS
    numbers = np.arange(STEPS * ENVS, dtype=np.float32).reshape(shape)
    terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
    terminated[5, 0], truncated[7, 0], truncated[8, 1] = True, True, True
    columns: dict[str, Any] = {
        "observations": numbers[..., None],
        "actions": numbers[..., None] + 0.25,
        "rewards": draw.normal(size=shape).astype(np.float32),
        "terminated": terminated,
        "truncated": truncated,
        "successors": np.where(terminated | truncated, -numbers, numbers + ENVS)[..., None].astype(np.float32),
        "valid": np.ones(shape, bool),
        "episode_start": np.zeros(shape, bool),
        "log_probs": numbers,
        "action_masks": None,
        "costs": None,
        "carry": (),
        "critic_carry": (),
    }
    return Trajectory(**columns)


@functools.cache
def _drawn() -> Any:
    """Return rows drawn from a memory of nine slots that twelve were written to, a half of them behind the ring."""
    replay = Replay(Encoder.of(SEEN, normalise=False), 1, SLOTS, ENVS, BLOCK, N_STEPS, GAMMA)
    first, second = (jax.tree.map(lambda x, k=k: x[k * BLOCK : (k + 1) * BLOCK], _trajectory()) for k in range(2))

    @jax.jit
    def drawn(first: Trajectory, second: Trajectory, key: Any) -> Any:
        from jumar.experience.replay import Cursor

        fresh, cursor = replay.add(replay.fresh(), first), Cursor.start()
        ring = replay.store(replay.ring(), fresh, cursor)
        cursor = replay.after(cursor, fresh)
        fresh = replay.add(replay.fresh(), second)
        return replay.draw(ring, fresh, cursor, 2_000, key)

    return jax.device_get(drawn(first, second, np.zeros(2, np.uint32)))


def _by_hand(row: int) -> tuple[float, float, float]:
    """Return the sum of rewards, the discount and the successor of a target that begins at a row."""
    steps = _trajectory()
    t, i = divmod(row, ENVS)
    total, discount = 0.0, 1.0
    for k in range(t, min(t + N_STEPS, STEPS)):
        total += discount * float(steps.rewards[k, i])
        discount *= GAMMA
        if steps.terminated[k, i]:
            return total, 0.0, float(steps.successors[k, i, 0])
        if steps.truncated[k, i] or k in (t + N_STEPS - 1, STEPS - 1):
            return total, discount, float(steps.successors[k, i, 0])
    raise AssertionError("every row has a last step")


@check(
    "experience/replay-targets",
    "rewards of 3 steps, discounts and successors of drawn rows against sums by hand",
    1e-5,
    True,
)
def replay_targets() -> float:
    drawn = _drawn()
    found = np.stack([drawn.rewards, drawn.discounts, drawn.successors[:, 0]], -1)
    return gap(found, np.array([_by_hand(int(row)) for row in drawn.observations[:, 0]]))


@check(
    "experience/replay-rows",
    "which rows are drawn: each of the newest slots, and no older one; a count of others",
    0.0,
    True,
)
def replay_rows() -> float:
    drawn = _drawn()
    seen = set(drawn.observations[:, 0].astype(int))
    newest = set(range((STEPS - SLOTS) * ENVS, STEPS * ENVS))
    return len(seen ^ newest) + gap(drawn.actions, drawn.observations + 0.25)


@check(
    "experience/reward-scale",
    "the deviation of discounted returns, cleared at all ends, that rewards are divided by",
    1e-5,
    True,
)
def reward_scale() -> float:
    steps, scale = _trajectory(), NormalisedRewards(GAMMA, 10.0)

    @jax.jit
    def scaled(steps: Trajectory) -> Any:
        return scale.scale(scale.learn(scale.init(ENVS), steps), steps.rewards)

    running, seen = np.zeros(ENVS), []
    for t in range(STEPS):
        running = GAMMA * running + steps.rewards[t]
        seen.append(running)
        running = np.where(steps.terminated[t] | steps.truncated[t], 0.0, running)
    return gap(scaled(steps), np.asarray(steps.rewards, np.float64) / np.std(seen))
