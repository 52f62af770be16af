"""The observation normaliser: what acts, what learns, and when it moves."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.algorithms.registry import algorithm
from jumar.policies.moments import RunningMoments
from jumar.policies.policy import make_policy
from jumar.trajectory import Trajectory
from jumar.verification.compare import gap
from jumar.verification.registry import check

STEPS, ENVS = 8, 4
SEEN, ACTIONS = spaces.Box(-100.0, 100.0, (2,), np.float32), spaces.Box(-10.0, 10.0, (1,), np.float32)
ROWS, MEAN, VARIANCE = 10.0, np.array([1.0, -2.0]), np.array([4.0, 0.25])
"""Of the observations before the rollout, which are far from its own."""


@functools.cache
def _learnt() -> dict[str, Any]:
    """Return what one update of PPO on a rollout of its own policy tells, with almost no noise in actions.

    So any other normaliser in the update than the one that acted would make enormous ratios.
    """
    chosen = algorithm("ppo")
    settings = chosen.settings.make(
        {
            "n_envs": ENVS,
            "n_steps": STEPS,
            "batch_size": ENVS * STEPS,
            "n_epochs": 1,
            "net_arch": (),
            "ortho_init": False,
            "normalize_observations": True,
            "log_std_init": -6.0,
        }
    )
    policy = make_policy(SEEN, ACTIONS, settings)
    update: Any = chosen.make(settings, policy)
    seen = _observations()
    zeros = np.zeros((STEPS, ENVS), np.float32)

    @jax.jit
    def learnt(seen: Any, mean: Any, variance: Any, key: Any) -> dict[str, Any]:
        moments = RunningMoments(jnp.asarray(ROWS, jnp.float32), mean, variance)
        learner = update.init(key, ENVS)._replace(observation_moments=moments)
        acting = update.acting(learner, jnp.float32(1.0))
        noise = update.behaviour.rollout_noise(jax.random.split(key, STEPS), ENVS)
        start, carry = jnp.zeros(ENVS, bool), update.behaviour.initial_carry(ENVS)
        actions = jax.vmap(lambda seen, noise: update.behaviour.act(acting, seen, carry, start, None, noise).kept)(
            seen, noise
        )
        never = jnp.zeros((STEPS, ENVS), bool)
        trajectory = Trajectory(
            observations=seen,
            actions=actions,
            rewards=jnp.sum(seen, -1),
            terminated=never,
            truncated=never,
            successors=seen,
            valid=~never,
            episode_start=never,
            log_probs=jnp.asarray(zeros),
            action_masks=None,
            costs=None,
            carry=policy.initial_carry(ENVS),
            critic_carry=(),
        )
        # What acted, measured by itself: the normal's density of the action around the mean at normalised observations.
        head = learner.parameters["policy"]["head"]
        mode = ((seen - mean) * jax.lax.rsqrt(variance + 1e-8)) @ head["mean"]["kernel"] + head["mean"]["bias"]
        new, record = update.learn(learner, trajectory, jnp.float32(1.0), key)
        return {
            "distance": (actions - mode) / jnp.exp(head["log_std"]),
            "approx_kl": record["approx_kl"],
            "clip_fraction": record["clip_fraction"],
            "moments": new.observation_moments,
        }

    single = (x.astype(np.float32) for x in (seen, MEAN, VARIANCE))
    return jax.device_get(learnt(*single, np.array([0, 1], np.uint32)))


def _observations() -> np.ndarray:
    return np.random.default_rng(2).normal(loc=(4.0, -1.0), scale=(2.0, 1.0), size=(STEPS, ENVS, 2)).astype(np.float32)


@check(
    "normaliser/acting",
    "actions drawn, in deviations from the mean at observations normalised as before",
    5.0,
    quick=True,
)
def acting() -> float:
    return float(np.max(np.abs(_learnt()["distance"])))


@check(
    "normaliser/first-ratio",
    "divergence and clipped share of an update's first minibatch: its ratios are 1",
    1e-6,
    quick=True,
)
def first_ratio() -> float:
    told = _learnt()
    return abs(float(told["approx_kl"])) + float(told["clip_fraction"])


@check(
    "normaliser/moments",
    "moments after the update against those of all observations, which moved it last",
    1e-5,
    quick=True,
)
def moments() -> float:
    rows, found = _observations().reshape(-1, 2).astype(np.float64), _learnt()["moments"]
    total = ROWS + len(rows)
    mean = (ROWS * MEAN + rows.sum(0)) / total
    second = (ROWS * (VARIANCE + MEAN**2) + (rows**2).sum(0)) / total
    return max(gap(found.rows, total), gap(found.mean, mean), gap(found.variance, second - mean**2))
