"""Whole updates of the on-policy family on all trajectories of the small process, compiled once for each method."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium import spaces

from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.registry import algorithm
from jumar.policies.policy import make_policy
from jumar.schedules import Constant
from jumar.solvers import Ascent, Joint, Optimiser, Repeated
from jumar.trajectory import Trajectory
from jumar.verification.enumeration import (
    ACTED,
    ACTIONS,
    COSTS,
    GAMMA,
    LENGTH,
    OTHER,
    STATES,
    everything,
    exact,
    process,
)

DELTA = 0.01
"""The divergence that steps of trust regions may have."""
ENTROPY = 0.1
"""The weight of the entropy bonus."""
RATE = 1.5
"""Of plain ascent, so large that the second step of an update meets ratios that are clipped."""
KL_COEF = 2.0
"""The weight of the divergence in the penalty."""
ROOM = 0.005
"""How far an episode's mean cost is below the limit: the best step without the limit would cost 0.013 more."""

ASCENT = {"n_epochs": 2, "optimizer": "sgd", "learning_rate": RATE, "max_grad_norm": None, "batch_size": LENGTH * 432}
WITHOUT_CRITIC = {"advantage": "to-go", "baseline": "none"}
WITH_CRITIC = {"critic_time": "steps", "critic_horizon": LENGTH}
GENERAL = {"gae_lambda": 0.7}
NATURAL = {**WITHOUT_CRITIC, "target_kl": DELTA, "cg_damping": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "reinforce": {**WITHOUT_CRITIC, "optimizer": "sgd", "learning_rate": 1.0},
    "a2c": {**WITH_CRITIC, **GENERAL, "ent_coef": ENTROPY},
    "ispg": {**WITHOUT_CRITIC, "importance": "trajectory", "n_rollouts": 1},
    "acer": {**WITH_CRITIC, "ent_coef": 0.0, "trust_region": False, "replay_ratio": 0, "buffer_size": 10_000},
    "restricted": {**WITHOUT_CRITIC, "epsilon": 0.005},
    "npg": NATURAL,
    "tnpg": {**NATURAL, "cg_tolerance": 1e-10},
    "trpo": NATURAL,
    "ppo": {**WITH_CRITIC, **GENERAL, **ASCENT},
    "ppo-penalty": {**WITH_CRITIC, **GENERAL, **ASCENT, "kl_coef": KL_COEF, "target_kl": 0.05},
    "cpo": {**NATURAL, "gamma": 1.0, "discount_states": False, "target_kl": 1e-3},
    "acktr": {
        **WITHOUT_CRITIC,
        "target_kl": DELTA,
        "ent_coef": 0.0,
        "learning_rate": 100.0,
        "momentum": 0.0,
        "kfac_damping": 1e-8,
        "kfac_update": 1,
    },
}
"""The settings of each method by which its update is a function of exact expectations."""


@dataclass(frozen=True)
class Improved:
    """What an update made of all trajectories."""

    before: np.ndarray
    """The logits, ``[S, A]``."""
    after: np.ndarray
    record: dict[str, float]
    """Some of the flight record."""

    @property
    def change(self) -> np.ndarray:
        """How far the logits moved, ``[S, A]``."""
        return self.after - self.before

    @property
    def probs(self) -> np.ndarray:
        """The action probabilities after the update, ``[S, A]``."""
        return probabilities(self.after)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@functools.cache
def improved(name: str) -> Improved:
    """Return what the method's update makes of all trajectories that the policy ``ACTED`` has."""
    update = _update(name)
    logits = np.log(OTHER if name == "ispg" else ACTED).astype(np.float32)
    tables = _critic_table(update, SETTINGS[name].get("gamma", GAMMA))

    @jax.jit
    def update_once(logits: Any, table: Any, trajectory: Trajectory, key: Any) -> Any:
        learner = update.init(key, trajectory.rewards.shape[1])
        parameters = jax.tree.map(jnp.zeros_like, learner.parameters)
        parameters["policy"]["head"]["logits"]["kernel"] = logits
        if table is not None:
            parameters["critic"]["head"]["kernel"] = table
        new, record = update.improve(update.begin_with(learner, parameters), trajectory, jnp.float32(1.0), key)
        # What is not returned is not computed.
        kept = {name: record[name] for name in ("mean_kl", "step_fraction") if name in record}
        return new.parameters["policy"]["head"]["logits"]["kernel"], kept

    found, record = update_once(logits, tables, rollout(update), np.zeros(2, np.uint32))
    after = np.asarray(found, np.float64)
    return Improved(logits.astype(np.float64), after, {key: float(x) for key, x in record.items()})


def _update(name: str) -> Any:
    """Return the method's shipped update; where its optimiser would hide the gradient, with plain ascent in its place."""
    chosen = algorithm(name)
    common = {
        "n_envs": everything().shape[1],
        "n_steps": LENGTH,
        "net_arch": (),
        "head_bias": False,
        "gamma": GAMMA,
        "normalize_advantage": False,
        "discount_states": True,
        "cost_limit": float(exact(1.0, costs=True).performance) + ROOM,
    }
    values = {key: value for key, value in common.items() if key in chosen.setting_names}
    settings = chosen.settings.make({**values, **SETTINGS[name]})
    update: Any = chosen.make(settings, make_policy(spaces.Discrete(STATES), spaces.Discrete(ACTIONS), settings))
    plain = Ascent(Optimiser(Constant(1.0), optax.identity()))
    if name in ("a2c", "acer"):
        return replace(update, solver=Joint(plain, update.solver.vf_coef))
    if name == "ispg":
        return replace(update, solver=Joint(Repeated(plain, update.solver.climber.times), update.solver.vf_coef))
    return update


def _critic_table(update: Any, gamma: float) -> np.ndarray | None:
    """Return the last layer of a critic that knows the exact values, ``[S, columns]``; ``None`` where there is none."""
    if not hasattr(update.critic, "linear"):
        return None
    known = exact(gamma)
    tables = known.values[..., None] if isinstance(update, OnPolicy) else known.action_values
    # One column for each time and output; after the last step everything is worth 0.
    columns = np.concatenate([tables, np.zeros_like(tables[:1])])
    return np.swapaxes(columns, 0, 1).reshape(STATES, -1).astype(np.float32)


def rollout(update: Any) -> Trajectory:
    """Return all trajectories as a rollout ``[T, N]``, whose episodes terminate with the last step."""
    all_of = everything()
    shape = all_of.shape
    never = np.zeros(shape, bool)
    last, first = never.copy(), never.copy()
    last[-1], first[0] = True, True
    return Trajectory(
        observations=all_of.states.astype(np.int32),
        actions=all_of.actions.astype(np.int32),  # type: ignore[arg-type]
        rewards=all_of.of(process().rewards).astype(np.float32),  # type: ignore[arg-type]
        terminated=last,  # type: ignore[arg-type]
        truncated=never,  # type: ignore[arg-type]
        successors=all_of.successors.astype(np.int32),
        valid=~never,  # type: ignore[arg-type]
        episode_start=first,  # type: ignore[arg-type]
        log_probs=all_of.of(np.log(ACTED)).astype(np.float32),  # type: ignore[arg-type]
        action_masks=None,
        costs=all_of.of(COSTS).astype(np.float32),  # type: ignore[arg-type]
        carry=update.policy.initial_carry(shape[1]),
        critic_carry=update.critic.initial_carry(shape[1]),
    )
