"""Off-policy updates on rows made by hand, and the same arithmetic in NumPy and double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium import spaces
from jax.flatten_util import ravel_pytree

from jumar.algorithms.off_policy.choices import Choice, Chosen
from jumar.algorithms.off_policy.improvements import Climbing
from jumar.algorithms.off_policy.state_values import Sampled
from jumar.algorithms.off_policy.update import Learner, OffPolicy, Optimisers, Sums
from jumar.algorithms.registry import algorithm
from jumar.experience.replay import Transitions
from jumar.policies.policy import make_policy
from jumar.schedules import Constant
from jumar.solvers import Optimiser
from jumar.trajectory import Trajectory

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
LOW, HIGH = np.array([-3.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)
LOPSIDED = spaces.Box(LOW, HIGH)
MIDDLE, HALF = (LOW + HIGH) / 2.0, (HIGH - LOW) / 2.0
SMALL: dict[str, Any] = {"net_arch": (5, 4), "buffer_size": 40, "batch_size": 6, "log_every": 1, "learning_starts": 0}
RATE = 0.5
GRADIENT = Optimiser(Constant(RATE), optax.identity())
"""Plain gradient steps, whose size tells the gradient."""


_updates: dict[str, OffPolicy] = {}


def make_update(name: str, action_space: spaces.Space[Any] = LOPSIDED, **settings: Any) -> OffPolicy:
    """Return an off-policy method with small networks; the same call returns the same object."""
    chosen = algorithm(name)
    made = chosen.settings.make({**SMALL, **settings})
    known = str((name, action_space, made))
    if known not in _updates:
        update = chosen.make(made, make_policy(BOX, action_space, made))
        assert isinstance(update, OffPolicy)
        _updates[known] = update
    return _updates[known]


@cache
def by_gradient(update: OffPolicy) -> OffPolicy:
    """Return the update with plain gradient steps in the place of Adam's."""
    return replace(update, optimisers=Optimisers(GRADIENT, GRADIENT, GRADIENT))


@dataclass(frozen=True, eq=False)
class Told:
    """A choice whose noise is told."""

    choice: Choice
    drawn: np.ndarray

    @property
    def follows(self) -> bool:
        return self.choice.follows

    def noise(self, key: Any, shape: tuple[int, int]) -> Any:
        assert self.drawn.shape == shape
        return jnp.asarray(self.drawn, jnp.float32)

    def __call__(self, policy: Any, parameters: Any, features: Any, noise: Any) -> Chosen:
        return self.choice(policy, parameters, features, noise)


def told(update: OffPolicy, successor: np.ndarray, actor: np.ndarray) -> OffPolicy:
    """Return the update with the noise of its two choices told."""
    return chosen_by(update, lambda choice: Told(choice, successor), lambda choice: Told(choice, actor))


def chosen_by(
    update: OffPolicy,
    successor: Callable[[Choice], Choice] = lambda choice: choice,
    actor: Callable[[Choice], Choice] = lambda choice: choice,
) -> OffPolicy:
    """Return the update with other choices made of its own."""
    valued, improvement = update.successor, update.improvement
    assert isinstance(valued, Sampled)
    assert isinstance(improvement, Climbing)
    assert isinstance(improvement.value, Sampled)
    climbed = replace(improvement.value, choice=actor(improvement.value.choice))
    return replace(
        update,
        successor=replace(valued, choice=successor(valued.choice)),
        improvement=replace(improvement, value=climbed),
    )


def scattered(tree: Any, seed: int, scale: float = 0.4) -> Any:
    """Return a pytree of the same shapes with other numbers, in single precision."""
    flat, unravel = ravel_pytree(tree)
    return unravel(jnp.asarray(np.random.default_rng(seed).normal(scale=scale, size=flat.shape), jnp.float32))


def scattered_learner(update: OffPolicy, seed: int = 0) -> Learner:
    """Return a learner in which no two groups of parameters are alike and nothing is 0."""
    learner = update.init(jax.random.PRNGKey(seed), update.replay.n_envs)
    return learner._replace(parameters=scattered(learner.parameters, seed))


def some_rows(n: int = 6, seed: int = 0, **changes: Any) -> Transitions:
    """Return rows with actions in the lopsided Box; one has terminated, one does not count."""
    draw = np.random.default_rng(seed)
    discounts, weights = np.full(n, 0.9, np.float32), np.ones(n, np.float32)
    discounts[1:2], weights[2:3] = 0.0, 0.0
    columns: Any = {
        "observations": draw.normal(size=(n, 3)).astype(np.float32),
        "actions": (MIDDLE + HALF * draw.uniform(-1.0, 1.0, (n, 2))).astype(np.float32),
        "rewards": draw.normal(size=n).astype(np.float32),
        "discounts": discounts,
        "successors": draw.normal(size=(n, 3)).astype(np.float32),
        "weights": weights,
    }
    return Transitions(**{**columns, **changes})


def improve(
    update: OffPolicy, learner: Learner, rows: Transitions, key: int = 3, remaining: float = 1.0
) -> tuple[Learner, dict[str, float], Sums]:
    """Do one update with rows; return the learner, what the update said of itself, and the sums."""
    arguments = update.begin().sums, jax.tree.map(jnp.asarray, rows), jnp.float32(remaining), jax.random.PRNGKey(key)
    learner, sums = improving(update)(learner, *arguments)
    said = {name: float(x) for name, x in {**sums.critic, **sums.actor}.items()}
    return learner, said, sums


@cache
def improving(update: OffPolicy) -> Callable[..., Any]:
    """Compile an update once."""
    return jax.jit(update.improve)


# -- the same in NumPy ------------------------------------------------------------------------------------------------


def double(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def affine(layer: Any, x: np.ndarray) -> np.ndarray:
    return x @ layer["kernel"] + layer["bias"]


def q_values(critic: Any, observations: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return Q of all critics, ``[n, B]``, at actions in half ranges."""
    n = sum(name.startswith("critic_") for name in critic)
    first = affine(critic["first"], np.concatenate([observations, units], axis=-1))
    values = []
    for k, x in enumerate(np.split(first, n, axis=-1)):
        for i in range(1, len(critic[f"critic_{k}"]) + 1):
            x = affine(critic[f"critic_{k}"][f"layer_{i}"], np.maximum(x, 0.0))
        values.append(x[:, 0])
    return np.stack(values)


def latent(policy: Any, observations: np.ndarray) -> np.ndarray:
    x, layers = observations, policy["torso"]["mlp"]
    for i in range(len(layers)):
        x = np.maximum(affine(layers[f"layer_{i}"], x), 0.0)
    return x


def mode(policy: Any, observations: np.ndarray) -> np.ndarray:
    """Return a deterministic policy's actions in half ranges."""
    return np.tanh(affine(policy["head"]["mean"], latent(policy, observations)))


def drawn(policy: Any, observations: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a stochastic policy's actions in half ranges, and log pi of them in the lopsided Box's own units."""
    z = latent(policy, observations)
    log_std = np.clip(affine(policy["head"]["log_std"], z), -20.0, 2.0)
    u = affine(policy["head"]["mean"], z) + np.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2.0 * np.pi)
    units = np.tanh(u)
    return units, np.sum(log_normal - np.log(1.0 - units**2) - np.log(HALF), axis=-1)


def mean(values: np.ndarray, weights: Any) -> float:
    weights = np.asarray(weights, np.float64)
    return float(np.sum(values * weights) / np.sum(weights))


def regression(rows: Any, targets: np.ndarray) -> Callable[[Any], float]:
    """Return the critics' loss as a function of their parameters."""
    units = (np.asarray(rows.actions, np.float64) - MIDDLE) / HALF

    def loss(critic: Any) -> float:
        errors = q_values(critic, np.asarray(rows.observations, np.float64), units) - targets
        return 0.5 * sum(mean(error**2, rows.weights) for error in errors)

    return loss


def gradient(function: Callable[[Any], float], tree: Any, step: float = 1e-6) -> np.ndarray:
    """Return the gradient at a pytree by central differences, as one vector."""
    flat, slopes = np.asarray(ravel_pytree(tree)[0], np.float64), []
    leaves, structure = jax.tree.flatten(double(tree))
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def at(vector: np.ndarray) -> float:
        parts = [part.reshape(leaf.shape) for part, leaf in zip(np.split(vector, sizes), leaves, strict=True)]
        return function(jax.tree.unflatten(structure, parts))

    for i in range(flat.size):
        moved = np.zeros_like(flat)
        moved[i] = step
        slopes.append((at(flat + moved) - at(flat - moved)) / (2.0 * step))
    return np.array(slopes)


def change(old: Any, new: Any) -> np.ndarray:
    """Return how far parameters moved, in gradients."""
    return (np.asarray(ravel_pytree(new)[0], np.float64) - np.asarray(ravel_pytree(old)[0], np.float64)) / RATE


# -- a round ----------------------------------------------------------------------------------------------------------


def steps(update: OffPolicy, n_steps: int, seed: int = 0, **changes: Any) -> Trajectory:
    """Return random steps ``[T, N]`` of environments with the spaces of ``make_update``."""
    draw, shape = np.random.default_rng(seed), (n_steps, update.replay.n_envs)
    size = update.policy.actions.size
    never = np.zeros(shape, bool)
    columns: Any = {
        "observations": draw.normal(size=(*shape, 3)).astype(np.float32),
        "actions": (MIDDLE + HALF * draw.uniform(-1.0, 1.0, (*shape, size))).astype(np.float32),
        "rewards": draw.normal(size=shape).astype(np.float32),
        "terminated": never,
        "truncated": never,
        "successors": draw.normal(size=(*shape, 3)).astype(np.float32),
        "valid": np.ones(shape, bool),
        "episode_start": never,
        "log_probs": np.zeros(shape, np.float32),
        "action_masks": None,
        "costs": None,
        "carry": (),
        "critic_carry": (),
    }
    return jax.tree.map(jnp.asarray, Trajectory(**{**columns, **changes}))


@cache
def program(update: OffPolicy) -> Callable[..., Any]:
    """Compile a round of an update once."""
    return jax.jit(update.update)
