"""Updates of the off-policy family on a few rows, with linear networks of known numbers and fixed noise."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium import spaces

from jumar.algorithms.off_policy.choices import Choice, Chosen
from jumar.algorithms.off_policy.state_values import Sampled
from jumar.algorithms.off_policy.update import OffPolicy, Optimisers
from jumar.algorithms.registry import algorithm
from jumar.experience.replay import Transitions
from jumar.policies.policy import make_policy
from jumar.schedules import Constant
from jumar.solvers.ascent import Optimiser

ROWS, GAMMA, TAU = 6, 0.9, 0.1
SEEN = spaces.Box(-1.0, 1.0, (3,), np.float32)
LOW, HIGH = np.array([-3.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)
ACTIONS = spaces.Box(LOW, HIGH)
MIDDLE, HALF = (LOW + HIGH) / 2.0, (HIGH - LOW) / 2.0
NOISE_SCALE, NOISE_CLIP = 0.4, 0.25
"""TD3's, so that some noise is clipped."""

PLAIN = Optimiser(Constant(1.0), optax.identity())
"""Steps that are gradients."""
COMMON: dict[str, Any] = {
    "net_arch": (),
    "tau": TAU,
    "gamma": GAMMA,
    "learning_starts": 0,
    "log_every": 1,
    "batch_size": ROWS,
    "buffer_size": 40,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "dpg": {},
    "dpg on policy": {"on_policy": True, "train_freq": ROWS},
    "ddpg": {},
    "td3": {
        "policy_delay": 1,
        "target_update_interval": 1,
        "target_policy_noise": NOISE_SCALE,
        "target_noise_clip": NOISE_CLIP,
    },
    "sac": {"ent_coef": "auto:0.3"},
}


@dataclass(frozen=True, eq=False)
class Fixed:
    """A choice whose noise is fixed."""

    choice: Choice
    drawn: np.ndarray

    @property
    def follows(self) -> bool:
        """Whether the choice inside is the target policy's."""
        return self.choice.follows

    def noise(self, key: Any, shape: tuple[int, int]) -> Any:
        """Return the fixed noise."""
        return jnp.asarray(self.drawn, jnp.float32)

    def __call__(self, policy: Any, parameters: Any, features: Any, noise: Any) -> Chosen:
        """Return what the choice inside makes of it."""
        return self.choice(policy, parameters, features, noise)


@dataclass(frozen=True)
class Studied:
    """What an update made of the rows; all numbers are float64."""

    before: dict[str, Any]
    """The parameters."""
    after: dict[str, Any]


def noise() -> tuple[np.ndarray, np.ndarray]:
    """Return the noise of the successor's choice and of the policy's improvement, ``[B, d]`` each."""
    first, second = np.random.default_rng(5).normal(size=(2, ROWS, 2))
    return first.astype(np.float32), second.astype(np.float32)


def rows() -> Transitions:
    """Return rows of the memory: one terminated, and one counts for nothing."""
    draw = np.random.default_rng(0)
    discounts, weights = np.full(ROWS, GAMMA, np.float32), np.ones(ROWS, np.float32)
    discounts[1], weights[2] = 0.0, 0.0
    columns: dict[str, Any] = {
        "observations": draw.normal(size=(ROWS, 3)).astype(np.float32),
        "actions": (MIDDLE + HALF * draw.uniform(-1.0, 1.0, (ROWS, 2))).astype(np.float32),
        "rewards": draw.normal(size=ROWS).astype(np.float32),
        "discounts": discounts,
        "successors": draw.normal(size=(ROWS, 3)).astype(np.float32),
        "weights": weights,
        "next_actions": (MIDDLE + HALF * draw.uniform(-1.0, 1.0, (ROWS, 2))).astype(np.float32),
    }
    return Transitions(**columns)


def scattered(tree: Any, seed: int, scale: float = 0.4) -> Any:
    """Return a pytree of the same shapes with random numbers, float32."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: draw.normal(scale=scale, size=x.shape).astype(np.float32), tree)


def plain(update: OffPolicy) -> OffPolicy:
    """Return the update with plain gradient steps in the place of Adam's."""
    return replace(update, optimisers=Optimisers(PLAIN, PLAIN, PLAIN))


@functools.cache
def studied(name: str) -> Studied:
    """Return what one update of a method makes of the rows; ``name`` is one of :data:`SETTINGS`."""
    chosen = algorithm(name.partition(" ")[0])
    settings = chosen.settings.make({**COMMON, **SETTINGS[name]})
    update: Any = plain(chosen.make(settings, make_policy(SEEN, ACTIONS, settings)))  # type: ignore[arg-type]
    first, second = noise()
    climbed = update.improvement.value
    if isinstance(update.successor, Sampled):
        update = replace(update, successor=replace(update.successor, choice=Fixed(update.successor.choice, first)))
    update = replace(
        update,
        improvement=replace(update.improvement, value=replace(climbed, choice=Fixed(climbed.choice, second))),
    )
    shapes = jax.eval_shape(lambda key: update.init(key, 1).parameters, jax.random.PRNGKey(0))
    parameters = scattered(shapes, 3)

    @jax.jit
    def once(parameters: Any, drawn: Transitions, key: Any) -> Any:
        learner = update.init(key, 1)
        learner = update.begin_with(learner, {k: parameters[k] for k in ("policy", "critic", "temperature")})
        learner = learner._replace(parameters=parameters)
        return update.improve(learner, update.begin().sums, drawn, jnp.float32(1.0), key)[0].parameters

    after = once(parameters, rows(), np.zeros(2, np.uint32))
    return Studied(double(parameters), double(after))


def double(tree: Any) -> Any:
    """Return a pytree as NumPy arrays of float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
