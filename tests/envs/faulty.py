"""Gymnasium environments for tests: sound ones with known behaviour, and ones that go wrong in a chosen way.

``faulty:Raises-v0`` and its like take ``at``, the step (counted over all episodes) at which they go wrong.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from jumar.drills.faulty import Faulty as Faulty  # the registered ids name it here
from jumar.drills.faulty import Walk


class FaultyReset(Walk):
    """A :class:`Walk` that raises in the reset after its first episode."""

    started = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self.started:
            raise RuntimeError("no second life")
        self.started = True
        return super().reset(seed=seed)


class Late(Walk):
    """A :class:`Walk` that gives a cost and a mask from its fourth step (over all episodes) on, and none before."""

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        late = {"cost": float(self.total), "action_mask": np.array([True, True, False])}
        return *rest, info | (late if self.total >= 4 else {})


class Leaving(Walk):
    """A :class:`Walk` that ends the whole program, as if all were well, in its constructor, a reset or a step."""

    def __init__(self, where: str = "step") -> None:
        super().__init__()
        self.where = where
        self._leave("constructor")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._leave("reset")
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self._leave("step")
        return super().step(action)

    def _leave(self, here: str) -> None:
        if here == self.where:
            sys.exit(0)


class Rich(gym.Env):
    """Nested observations of every kind, a MultiDiscrete action with masks, and a cost now and then."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (2, 3, 1), np.uint8),
            "flags": spaces.MultiBinary(3),
            "place": spaces.Tuple((spaces.Discrete(5, start=-2), spaces.Box(-1, 1, (2,), np.float64))),
            "dice": spaces.MultiDiscrete([2, 6]),
        }
    )
    action_space = spaces.MultiDiscrete([3, 2])

    def __init__(self, costly: bool = True) -> None:
        self.costly = costly

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        random = self.np_random
        return {
            "image": random.integers(0, 256, (2, 3, 1), dtype=np.uint8),
            "flags": random.integers(0, 2, 3).astype(np.int8),
            "place": (int(random.integers(-2, 3)), random.uniform(-1, 1, 2)),
            "dice": np.array([random.integers(2), random.integers(6)]),
        }

    def action_masks(self) -> np.ndarray:
        mask = np.array([True, False, True, True, True])
        mask[3 if self.time % 3 == 0 else 4] = False
        return mask

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        ended = bool(self.np_random.uniform() < 0.2)
        info = {"cost": float(self.time)} if self.costly and self.time % 2 else {}
        return self.observe(), float(action[0] + self.np_random.normal()), ended, self.time >= 7, info


class Modules(Walk):
    """Says in its reward whether this process has imported JAX, and prints."""

    def step(self, action: Any) -> Any:
        print("printed by the environment", flush=True)
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("jax" in sys.modules), terminated, truncated, info


class Growing(Walk):
    """A :class:`Walk` whose observations are a Dict with a part that no policy can see."""

    observation_space = spaces.Dict(
        {
            "counter": Walk.observation_space,
            "place": spaces.Tuple((spaces.Discrete(2),)),
            "seen": spaces.Sequence(spaces.Discrete(2)),
        }
    )

    def observe(self, action: Any) -> Any:
        return {"counter": super().observe(action).copy(), "place": (0,), "seen": (1,)}


class Words(gym.Space[str]):
    """Strings, in a space of a package's own, as MiniGrid's missions are."""

    def __init__(self) -> None:
        super().__init__(dtype=str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)


class Mission(Walk):
    """A :class:`Walk` whose observations have text in many places."""

    observation_space = spaces.Dict(
        {
            "counter": Walk.observation_space,
            "mission": Words(),
            "notes": spaces.Dict({"first": spaces.Text(20)}),
            "place": spaces.Tuple((spaces.Text(9), spaces.Discrete(2))),
        }
    )

    def observe(self, action: Any) -> Any:
        place = ("here", 1)
        return {"counter": super().observe(action).copy(), "mission": "go", "notes": {"first": "x"}, "place": place}


class Letter(Walk):
    """A :class:`Walk` that is told in words alone."""

    observation_space = spaces.Dict({"mission": spaces.Text(20)})

    def observe(self, action: Any) -> Any:
        return {"mission": "walk"}


class Louder(gym.RewardWrapper):
    """Multiplies rewards: a wrapper of a user's own."""

    def __init__(self, env: gym.Env, factor: float = 2.0) -> None:
        super().__init__(env)
        self.factor = factor

    def reward(self, reward: Any) -> float:
        return self.factor * float(reward)


def broken_wrapper(env: gym.Env) -> Any:
    return [env]


for name, fault in {
    "Raises-v0": "raise",
    "Hangs-v0": "hang",
    "Exits-v0": "exit",
    "FourValues-v0": "four values",
    "NaN-v0": "nan",
    "Shape-v0": "shape",
    "Scalar-v0": "scalar",
    "Text-v0": "text",
    "InfReward-v0": "inf reward",
    "NoReward-v0": "no reward",
    "TextReward-v0": "text reward",
    "ListReward-v0": "list reward",
    "BadCost-v0": "bad cost",
    "NoMask-v0": "no mask",
    "Info-v0": "info",
}.items():
    gym.register(name, "faulty:Faulty", kwargs={"fault": fault})
gym.register("Walk-v0", "faulty:Walk")
gym.register("FaultyReset-v0", "faulty:FaultyReset")
gym.register("Leaving-v0", "faulty:Leaving")
gym.register("Growing-v0", "faulty:Growing")
gym.register("Letter-v0", "faulty:Letter")
gym.register("Mission-v0", "faulty:Mission")
gym.register("Rich-v0", "faulty:Rich")
gym.register("Modules-v0", "faulty:Modules")
gym.register("Runner-v0", "faulty:Runner")
gym.register("LimitedWalk-v0", "faulty:Walk", max_episode_steps=4, kwargs={"ends": 4})


class Runner(Walk):
    """A :class:`Walk` that tells how fast it moves: as fast as its steps are many, or ``speed`` where that is given."""

    def __init__(self, speed: float | None = None, ends: int = 4) -> None:
        super().__init__(ends=ends)
        self.speed = speed

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, info | {"x_velocity": float(self.time) if self.speed is None else self.speed}
