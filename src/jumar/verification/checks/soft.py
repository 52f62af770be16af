"""Soft methods with Discrete actions on all transitions of a process, against the exact soft optimum."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.algorithms.off_policy.state_values import SampledSoftMaximum, States
from jumar.algorithms.off_policy.stein import Stein
from jumar.algorithms.registry import algorithm
from jumar.critics.ensemble import First
from jumar.experience.replay import Transitions
from jumar.lab import maximum_entropy
from jumar.lab.precision import compiled_in_double
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.policies.policy import make_policy
from jumar.verification.compare import gap
from jumar.verification.exact_batches import ACTIONS, GAMMA, STATES, process
from jumar.verification.registry import check
from jumar.verification.replayed import scattered

ALPHA = 0.5
UPDATES = 4_000
ADAM = 1e-3
"""What is left of Adam's last steps."""


@functools.cache
def _optimum() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best policy ``[S, A]``, its soft action values, and V of policies on the way by soft policy iteration."""

    @compiled_in_double
    def told(mdp: TabularMDP, logits: Any) -> Any:
        best, values = maximum_entropy.soft_optimum(mdp, ALPHA)
        _, course = maximum_entropy.soft_policy_iteration(mdp, Categorical(logits), ALPHA, 30)
        return best.probs, values, course

    return told(process(), np.random.default_rng(3).normal(size=(STATES, ACTIONS)))


@functools.cache
def _learnt(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the action values ``[n, S, A]`` and the policy ``[S, A]`` that a method learns from exact means."""
    chosen = algorithm(name)
    settings = chosen.settings.make(
        {"ent_coef": ALPHA, "net_arch": (), "tau": 0.1, "target_update_interval": 1, "learning_rate": "linear:0.05"}
    )
    policy = make_policy(spaces.Discrete(STATES), spaces.Discrete(ACTIONS), settings)
    update: Any = chosen.make(settings, policy)
    mdp = process()
    states, actions, successors = (x.ravel() for x in np.indices(np.shape(mdp.transitions)))
    columns: dict[str, Any] = {
        "observations": states.astype(np.int32),
        "actions": actions.astype(np.float32)[:, None],
        "rewards": np.asarray(mdp.rewards)[states, actions].astype(np.float32),
        "discounts": np.full(len(states), GAMMA, np.float32),
        "successors": successors.astype(np.int32),
        "weights": np.asarray(mdp.transitions).ravel().astype(np.float32),
    }
    shapes = jax.eval_shape(lambda key: update.init(key, 1).parameters, jax.random.PRNGKey(0))

    @jax.jit
    def learnt(parameters: Any, rows: Transitions, key: Any) -> Any:
        learner = update.begin_with(update.init(key, 1), parameters)

        def step(state: Any, i: Any) -> tuple[Any, None]:
            learner, sums = state
            return update.improve(learner, sums, rows, 1.0 - i / UPDATES, key), None

        (learner, _), _ = jax.lax.scan(step, (learner, update.begin().sums), jnp.arange(UPDATES, dtype=jnp.float32))
        seen = policy.encoder.encode(jnp.arange(STATES), learner.observation_moments)
        values, _ = update.critic.of_all(learner.parameters["critic"], (), seen, key, False)
        distribution: Any = policy.at(learner.parameters["policy"], seen)
        return values, distribution.probs

    start = scattered({key: shapes[key] for key in ("policy", "critic", "temperature")}, 1)
    values, probs = learnt(start, Transitions(**columns), np.zeros(2, np.uint32))
    return np.asarray(values), np.asarray(probs)


@check("soft/optimum", "the largest fall of a state's soft value in soft policy iteration, and what it ends at", 1e-9)
def optimum() -> float:
    _, values, course = _optimum()
    best = ALPHA * np.log(np.sum(np.exp(values / ALPHA), -1))
    return max(float(np.max(-np.diff(course, axis=0))), gap(course[-1], best))


@check("soft/sql-values", "action values of soft Q-learning against the exact soft optimum", ADAM)
def sql_values() -> float:
    values, _ = _learnt("sql")
    return gap(values, np.broadcast_to(_optimum()[1], values.shape))


@check("soft/sql-policy", "its policy against exp(Q / alpha) of these", ADAM)
def sql_policy() -> float:
    return gap(_learnt("sql")[1], _optimum()[0])


@check("soft/sac-values", "action values of SAC for Discrete actions against the exact soft optimum", ADAM)
def sac_values() -> float:
    values, _ = _learnt("sac")
    return gap(values, np.broadcast_to(_optimum()[1], values.shape))


@check("soft/sac-policy", "its policy against the best one", ADAM)
def sac_policy() -> float:
    return gap(_learnt("sac")[1], _optimum()[0])


@check(
    "soft/box-maximum", "the soft maximum over a Box of a linear Q, at a grid of actions, against its integral", 1e-4
)
def box_maximum() -> float:
    half_range, slopes = (2.0, 5.0), np.array([0.7, -0.4])
    points = (np.arange(200) + 0.5) / 100.0 - 1.0
    grid = np.stack(np.meshgrid(points, points), -1).reshape(-1, 1, 2)

    @compiled_in_double
    def told(slopes: Any, grid: Any) -> Any:
        class Linear:
            """One critic: Q = 1 + b'a, of actions in half ranges."""

            def of(self, units: Any) -> Any:
                return (1.0 + units @ slopes)[None]

        critics: Any = Linear()
        value = SampledSoftMaximum(First(), grid.shape[0], half_range)
        nothing: Any = None
        return value(nothing, nothing, critics, jnp.asarray(ALPHA), grid, nothing).values

    scaled = slopes / ALPHA
    integral = np.prod(2.0 * np.array(half_range) * np.sinh(scaled) / scaled)
    return abs(float(told(slopes, grid)[0]) - (1.0 + ALPHA * np.log(integral)))


@check("soft/stein", "the slope of SQL's sampler in a Box against Stein's direction, with the Jacobian of tanh", 1e-10)
def stein() -> float:
    """The sampler is noise and a shift, Q is linear, so that the slope in the shift is the mean direction."""
    slopes, shift = np.array([0.7, -0.4]), np.array([0.3, -0.1])
    noise = np.random.default_rng(6).normal(size=(8, 1, 2))

    @compiled_in_double
    def told(slopes: Any, shift: Any, noise: Any) -> Any:
        class Shifted:
            """A sampler, its own distribution and codec."""

            actions = property(lambda self: self)

            def __init__(self, shift: Any = None) -> None:
                self.shift = shift

            def at(self, parameters: Any, features: Any) -> Shifted:
                return Shifted(parameters)

            def outcome(self, noise: Any) -> Any:
                return noise + self.shift

            def to_unit(self, own: Any, xp: Any) -> Any:
                return jnp.tanh(own)

        class Linear:
            states = States({}, None, (1, 2))

            def of(self, units: Any) -> Any:
                return (units @ slopes)[None]

        sampler: Any = Shifted()
        critics: Any = Linear()

        def climbed(shift: Any) -> Any:
            return Stein(First(), 8)(sampler, shift, critics, jnp.asarray(ALPHA), noise, jnp.zeros(2)).values[0]

        return jax.grad(climbed)(shift)

    u = (noise + shift)[:, 0]
    pushing, moved = u[:4], u[4:]
    scores = slopes / ALPHA * (1.0 - np.tanh(pushing) ** 2) - 2.0 * np.tanh(pushing)
    apart = pushing[:, None] - moved[None]
    squared = np.sum(apart**2, -1)
    width = np.median(squared) / np.log(5.0)
    directions = np.exp(-squared / width)[..., None] * (scores[:, None] - 2.0 * apart / width)
    return gap(told(slopes, shift, noise), directions.mean((0, 1)))
