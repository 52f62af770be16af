"""Updates on experience made by hand, small enough to be checked number by number."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax.flatten_util import ravel_pytree

from jumar.algorithms.off_policy.acer_update import Replay
from jumar.algorithms.on_policy.costs import CostsIgnored
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.registry import ALGORITHMS, algorithm
from jumar.algorithms.settings import RolloutSettings
from jumar.algorithms.update import Learner
from jumar.collecting.runner import Held, Runner
from jumar.experience.rollouts import Rollout, View, by_environment
from jumar.policies.moments import RunningMoments
from jumar.policies.policy import Policy, make_policy
from jumar.trajectory import Batch, Trajectory

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
CONTINUOUS = spaces.Box(-1.0, 1.0, (2,), np.float32)
CHOICES = spaces.Discrete(3)
Rollouts = OnPolicy | Replay
"""Updates that learn from rollouts."""
ROLLOUT_METHODS = tuple(name for name, entry in ALGORITHMS.items() if issubclass(entry.settings, RolloutSettings))
"""The methods that learn from rollouts, which most of what is here is for."""
REPLAY_METHODS = tuple(name for name in ALGORITHMS if name not in ROLLOUT_METHODS)
"""The methods that learn from a memory of steps alone; their actions are in a Box."""
_updates: dict[str, Any] = {}
SMALL: dict[str, Any] = {"n_envs": 2, "n_steps": 8, "batch_size": 16, "n_epochs": 1, "net_arch": (6,)}


def make_update(
    observation_space: gym.Space[Any] = BOX,
    action_space: gym.Space[Any] = CHOICES,
    name: str = "ppo",
    **settings: Any,
) -> OnPolicy:
    """Return an algorithm with small networks and one minibatch; PPO by default, one epoch of it.

    The same call returns the same object.
    """
    chosen = algorithm(name)
    small = {setting: value for setting, value in SMALL.items() if setting in chosen.setting_names}
    made = chosen.settings.make({**small, **settings})
    known = str((name, observation_space, action_space, made))
    if known not in _updates:
        policy = make_policy(observation_space, action_space, made)
        _updates[known] = chosen.make(made, policy)
    return _updates[known]


class Recording(OnPolicy):
    """The same update, which also puts what it was given into its record."""

    def improve(self, learner: Learner, trajectory: Trajectory, remaining: Any, key: Any) -> Any:
        new, record = super().improve(learner, trajectory, remaining, key)
        return new, {**record, "trajectory": trajectory, "batch": self.batch(learner, trajectory)}


def recording(update: OnPolicy) -> Recording:
    return Recording(**vars(update))


def first_learner(update: Rollouts, n_envs: int = 2, seed: int = 0) -> Learner:
    return update.init(jax.random.PRNGKey(seed), n_envs)


def held_first(runner: Runner, learner: Any) -> Held:
    """Return what a runner of one seed begins with, as a run does."""
    return Held(learner, runner.memory(), runner.init(jax.random.PRNGKey(1)))


ALL_LEFT = np.ones(1, np.float32)
"""The share of training that is left to a round at the beginning."""


def one_round(seed: int, remaining: float = 1.0) -> tuple[jax.Array, np.ndarray]:
    """Return the keys of an iteration of one round, and the share of training that is left at it."""
    return jax.random.PRNGKey(seed)[None], np.float32(remaining) * ALL_LEFT


def experience(
    update: Rollouts, learner: Learner, n_steps: int = 8, n_envs: int = 2, seed: int = 0, **changes: Any
) -> Trajectory:
    """Return random observations and rewards with actions drawn by the policy; ``changes`` replace fields.

    Environment 0 terminates at row 2, environment 1 meets a time limit at row 4 (where there are so many rows). Steps cost
    something where the update minds costs.
    """
    draw = np.random.default_rng(seed)
    shape = n_steps, n_envs
    observations = draw.normal(size=(*shape, 3)).astype(np.float32)
    successors = np.concatenate([observations[1:], draw.normal(size=(1, n_envs, 3)).astype(np.float32)])
    terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
    terminated[2:3, 0], truncated[4:5, -1] = True, True
    ended = terminated | truncated
    successors = np.where(ended[..., None], draw.normal(size=(*shape, 3)), successors).astype(np.float32)
    starts = np.concatenate([np.ones((1, n_envs), bool), ended[:-1]])
    zeros = np.zeros(shape, np.float32)
    rewards = draw.normal(size=shape).astype(np.float32)
    trajectory = Trajectory(
        observations=jnp.asarray(observations),
        actions=jnp.asarray(zeros),
        rewards=jnp.asarray(rewards),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        successors=jnp.asarray(successors),
        valid=jnp.ones(shape, bool),
        episode_start=jnp.asarray(starts),
        log_probs=jnp.asarray(zeros),
        action_masks=None,
        costs=None if isinstance(update.costs, CostsIgnored) else jnp.asarray(np.abs(rewards)),
        carry=update.policy.initial_carry(n_envs),
        critic_carry=update.critic.initial_carry(n_envs),
    )
    seen = learner.parameters["policy"], learner.observation_moments, learner.ages
    actions, log_probs = _acted(update.policy, *seen, trajectory, changes, jax.random.PRNGKey(seed))
    return trajectory._replace(**{"actions": actions, **changes, "log_probs": log_probs})


ODD_CASES = ("one action", "no reward", "one row", "no experience", "no deviation", "far behaviour")
"""Experience that gives no direction, or one beyond single precision: see :func:`odd_case`."""


def odd_case(name: str, case: str) -> tuple[Rollouts, Learner, Trajectory]:
    """Return an update of the algorithm, its first learner, and the experience of one of :data:`ODD_CASES`."""
    action_space = {"one action": spaces.Discrete(1), "no deviation": CONTINUOUS}.get(case, CHOICES)
    rows = 1 if case == "one row" else 8
    sizes = {"n_steps": rows, "batch_size": 2 * rows}
    known = algorithm(name).setting_names
    update = make_update(BOX, action_space, name, **{key: size for key, size in sizes.items() if key in known})
    learner = first_learner(update)
    changes: dict[str, Any] = {}
    if case == "no reward":
        changes["rewards"] = jnp.zeros((rows, 2))
    if case == "no experience":
        changes["valid"] = jnp.zeros((rows, 2), bool)
    if case == "no deviation":
        head = {**learner.parameters["policy"]["head"], "log_std": jnp.full(2, -80.0)}
        policy = {**learner.parameters["policy"], "head": head}
        learner = learner._replace(parameters={**learner.parameters, "policy": policy})
    trajectory = experience(update, learner, n_steps=rows, **changes)
    if case == "far behaviour":
        trajectory = trajectory._replace(log_probs=jnp.full((rows, 2), -np.inf))
    return update, learner, trajectory


@partial(jax.jit, static_argnums=0)
def _acted(
    policy: Policy,
    parameters: Any,
    moments: RunningMoments,
    ages: Any,
    trajectory: Trajectory,
    changes: dict[str, Any],
    key: Any,
) -> tuple[Any, Any]:
    """Return actions that the policy draws in a rollout, and log pi of them, or of others, in the rollout as changed.

    It is ``OnPolicy.completed``, which is of a whole update, for the policy alone: all updates with one policy share a program.
    """

    def drawn_from(rollout: Trajectory) -> tuple[Any, Any]:
        batch = View.of(Rollout(rollout, ages), policy.encoder, moments).rows(rollout)
        return policy.evaluate(parameters, batch), batch.actions

    actions = by_environment(drawn_from(trajectory)[0].sample(key))
    distribution, taken = drawn_from(trajectory._replace(**{"actions": actions, **changes}))
    return actions, distribution.log_prob(taken).T


@lru_cache(maxsize=64)
def _program(update: Rollouts) -> Callable[..., Any]:
    """Compile once for all updates that are equal."""
    return jax.jit(update.improve)


def improve(
    update: Rollouts, learner: Learner, trajectory: Trajectory, seed: int = 7, remaining: float = 1.0
) -> tuple[Learner, dict[str, np.ndarray]]:
    """Run the update once on a rollout that is complete; return the new learner and the flight record."""
    new, record = _program(update)(learner, trajectory, np.float32(remaining), jax.random.PRNGKey(seed))
    return new, jax.device_get(record)


def flat(tree: Any) -> np.ndarray:
    """Return all numbers of a pytree as one float64 vector."""
    return np.asarray(ravel_pytree(tree)[0], np.float64)


def rows_of(update: Rollouts, learner: Learner, trajectory: Trajectory) -> Batch:
    """Return the rows of a rollout as the learner sees them, compiled once for all updates that are equal."""
    return _batch(update)(learner, trajectory)


@lru_cache(maxsize=64)
def _batch(update: Rollouts) -> Callable[..., Any]:
    return jax.jit(update.batch)
