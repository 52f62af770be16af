r"""A decision process with a few states and actions, and exactly what a policy is worth in it.

A policy is a :class:`~jumar.policies.distributions.Categorical` with logits ``[S, A]``: its action distributions at all states.
With a horizon H it may depend on time, with logits ``[H, S, A]``, as the optimal one does.

Without a horizon the process goes on for ever, values and visits do not depend on time, and their shapes are ``[S]`` and
``[S, A]``. With a horizon H they have a leading axis of time, ``[H, S]`` and ``[H, S, A]``, and the future after
the last step is worth 0. Sums over all axes are right for both.

Visits are discounted and not normalised, :math:`\rho(s) = \sum_t \gamma^t P(s_t = s)`, so that
:math:`J = \sum_s \rho(s) \sum_a \pi(a|s) r(s, a)`. Means are taken under the normalised :func:`state_distribution`
:math:`d = (1 - \gamma) \rho`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array

from jumar.errors import UsageError
from jumar.lab.arguments import ArrayLike
from jumar.lab.precision import in_double
from jumar.lab.rollouts import Rollouts, discounts
from jumar.policies.distributions import Categorical


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("transitions", "rewards", "initial", "gamma"),
    meta_fields=("horizon",),
)
@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A Markov decision process with ``S`` states and ``A`` actions; a pytree of its numbers.

    The constructor takes anything; :meth:`of` checks.
    """

    transitions: ArrayLike
    """P(s' | s, a), ``[S, A, S]``."""
    rewards: ArrayLike
    """r(s, a), ``[S, A]``."""
    initial: ArrayLike
    """P(s_0), ``[S]``."""
    gamma: float
    """Discount in [0, 1]; below 1 without a horizon."""
    horizon: int | None = None
    """How many steps there are; None: without end."""

    @classmethod
    def of(cls, transitions: Any, rewards: Any, initial: Any, gamma: float, horizon: int | None = None) -> TabularMDP:
        """Return the process of these tables (lists will do), if they are one.

        Raises:
            UsageError: shapes do not fit, probabilities are negative or do not sum to 1, a reward is not finite, or the
                discount or the horizon is out of range.
        """
        transitions, rewards, initial = (np.asarray(table, np.float64) for table in (transitions, rewards, initial))
        if (
            rewards.ndim != 2
            or transitions.shape != (*rewards.shape, len(rewards))
            or initial.shape != rewards.shape[:1]
        ):
            raise UsageError(
                f"tables of shapes {transitions.shape}, {rewards.shape} and {initial.shape} do not fit; transitions, "
                "rewards and initial must be [S, A, S], [S, A] and [S]."
            )
        for name, table in (("transitions", transitions), ("initial", initial)):
            if not np.all(table >= 0.0) or not np.allclose(table.sum(-1), 1.0, rtol=0.0, atol=1e-9):
                raise UsageError(f"{name} must be probabilities, and sum to 1 over the last axis.")
        if not np.all(np.isfinite(rewards)):
            raise UsageError("rewards must be finite numbers.")
        if horizon is not None and (not isinstance(horizon, (int, np.integer)) or horizon < 1):
            raise UsageError(
                f"horizon={horizon} must be at least 1 and a whole number, or None for a process without end."
            )
        if isinstance(gamma, str) or not 0.0 <= gamma <= 1.0 or (horizon is None and gamma == 1.0):
            raise UsageError(f"gamma={gamma} must be in [0, 1], and below 1 without a horizon.")
        return cls(transitions, rewards, initial, gamma, horizon)

    @property
    def n_states(self) -> int:
        """S."""
        return self.rewards.shape[0]

    @property
    def n_actions(self) -> int:
        """A."""
        return self.rewards.shape[1]


@in_double
def random_mdp(key: Array, n_states: int, n_actions: int, gamma: float, horizon: int | None = None) -> TabularMDP:
    """Draw a process: all probabilities uniform over their simplices, rewards standard normal."""
    transitions, initial, rewards = jax.random.split(key, 3)
    return TabularMDP(
        _random_probabilities(transitions, (n_states, n_actions, n_states)),
        jax.random.normal(rewards, (n_states, n_actions)),
        _random_probabilities(initial, (n_states,)),
        gamma,
        horizon,
    )


def _random_probabilities(key: Array, shape: tuple[int, ...]) -> Array:
    # Exponential numbers over their sum are uniform over the simplex.
    parts = jax.random.exponential(key, shape)
    return parts / jnp.sum(parts, -1, keepdims=True)


# -- values -----------------------------------------------------------------------------------------------------------


@in_double
def state_values(mdp: TabularMDP, policy: Categorical) -> Array:
    r"""Return :math:`V = r_\pi + \gamma P_\pi V`, ``[S]``, or with a horizon the worth of what is left, ``[H, S]``.

    Raises:
        UsageError: the policy's shape is not that of the process.
    """
    probs = _probabilities(mdp, policy, mdp.horizon)
    if mdp.horizon is None:
        return _solve(jnp.eye(mdp.n_states) - mdp.gamma * _moves(mdp, probs), _mean_rewards(mdp, probs))

    def before(later: Array, probs: Array) -> tuple[Array, Array]:
        now = _mean_rewards(mdp, probs) + mdp.gamma * _moves(mdp, probs) @ later
        return now, now

    return jax.lax.scan(before, jnp.zeros(mdp.n_states, probs.dtype), probs, reverse=True)[1]


@in_double
def action_values(mdp: TabularMDP, policy: Categorical) -> Array:
    r"""Return :math:`Q(s, a) = r(s, a) + \gamma \sum_{s'} P(s'|s, a) V(s')`, ``[S, A]`` or ``[H, S, A]``."""
    values = state_values(mdp, policy)
    later = values if mdp.horizon is None else jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])
    return jnp.asarray(mdp.rewards) + mdp.gamma * jnp.einsum("sap,...p->...sa", mdp.transitions, later)


@in_double
def advantages(mdp: TabularMDP, policy: Categorical) -> Array:
    r"""Return :math:`A(s, a) = Q(s, a) - V(s)`, ``[S, A]`` or ``[H, S, A]``."""
    return action_values(mdp, policy) - state_values(mdp, policy)[..., None]


@in_double
def expected_advantages(mdp: TabularMDP, policy: Categorical, new: Categorical) -> Array:
    r"""Return :math:`\sum_a \pi'(a|s) A_\pi(s, a)`, ``[S]`` or ``[H, S]``: what one new action gains."""
    return jnp.sum(new.probs * advantages(mdp, policy), -1)


@in_double
def over_time(mdp: TabularMDP, policy: Categorical) -> Categorical:
    """Return the policy with an axis of time where the process has a horizon, logits ``[H, S, A]``, and else as it is.

    Raises:
        UsageError: it is no policy, or its shape is not that of the process.
    """
    _check_policy(mdp, policy)
    if mdp.horizon is None:
        return policy
    return Categorical(jnp.broadcast_to(policy.logits, (mdp.horizon, mdp.n_states, mdp.n_actions)))


def _check_policy(mdp: TabularMDP, policy: Categorical) -> None:
    if not isinstance(policy, Categorical):
        raise UsageError(
            f"a policy is a Categorical with logits [S, A], not a {type(policy).__name__}; of a table of probabilities "
            "families.table(probs) makes one."
        )
    size = (mdp.n_states, mdp.n_actions)
    if policy.logits.shape != size and (mdp.horizon is None or policy.logits.shape != (mdp.horizon, *size)):
        right = f"{size}" if mdp.horizon is None else f"{size} or {(mdp.horizon, *size)}"
        raise UsageError(
            f"a policy with logits of shape {policy.logits.shape} does not fit the process; it must be {right}."
        )


def _probabilities(mdp: TabularMDP, policy: Categorical, length: int | None) -> Array:
    """Return the policy's probabilities, ``[length, S, A]``; without a length as they are."""
    _check_policy(mdp, policy)
    probs = policy.probs
    if length is None:
        return probs
    if probs.ndim == 2:
        return jnp.broadcast_to(probs, (length, *probs.shape))
    if length > len(probs):
        raise UsageError(f"length={length} is beyond the {len(probs)} steps that the policy is given for.")
    return probs[:length]


def _moves(mdp: TabularMDP, probs: Array) -> Array:
    """Return the transitions ``[S, S]`` of the Markov chain that a policy makes of the process."""
    return jnp.einsum("sa,sap->sp", probs, mdp.transitions)


def _mean_rewards(mdp: TabularMDP, probs: Array) -> Array:
    """Return the rewards of that chain, ``[S]``; or ``[H, S]`` of a policy that depends on time."""
    return jnp.sum(probs * mdp.rewards, -1)


def _solve(matrix: Array, right_side: Array) -> Array:
    """Return ``x`` with ``matrix x = right_side``, ``[S]``; it can be differentiated.

    Mapped over processes or policies it solves one system after the other: XLA's processor backend comes to a standstill
    over triangular solves of many stacked matrices.
    """
    one = jax.custom_batching.sequential_vmap(jnp.linalg.solve)
    return jax.lax.custom_linear_solve(
        lambda x: matrix @ x, right_side, lambda _, b: one(matrix, b), lambda _, b: one(matrix.T, b)
    )


# -- visits -----------------------------------------------------------------------------------------------------------


@in_double
def occupancies(mdp: TabularMDP, policy: Categorical, length: int) -> Array:
    """Return P(s_t = s) of the first ``length`` steps, ``[length, S]``.

    Raises:
        UsageError: the policy's shape is not that of the process, or it depends on time and is not given for so many steps.
    """
    probs = _probabilities(mdp, policy, length)

    def after(now: Array, probs: Array) -> tuple[Array, Array]:
        return now @ _moves(mdp, probs), now

    return jax.lax.scan(after, jnp.asarray(mdp.initial, probs.dtype), probs)[1]


@in_double
def visitation(mdp: TabularMDP, policy: Categorical) -> Array:
    r"""Return :math:`\rho(s) = \sum_t \gamma^t P(s_t = s)`, ``[S]``, or with a horizon its terms, ``[H, S]``."""
    if mdp.horizon is None:
        move = _moves(mdp, _probabilities(mdp, policy, None))
        return _solve(jnp.eye(mdp.n_states) - mdp.gamma * move.T, jnp.asarray(mdp.initial))
    return discounts(mdp.gamma, mdp.horizon)[:, None] * occupancies(mdp, policy, mdp.horizon)


@in_double
def state_distribution(mdp: TabularMDP, policy: Categorical) -> Array:
    r"""Return :math:`d(s)`, the discounted visits normalised to a distribution over states, ``[S]``.

    Without a horizon it is :math:`(1 - \gamma) \rho(s)`.
    """
    visits = jnp.sum(visitation(mdp, policy).reshape(-1, mdp.n_states), 0)
    return visits / jnp.sum(visits)


@in_double
def performance(mdp: TabularMDP, policy: Categorical) -> Array:
    r"""Return :math:`J = E[\sum_t \gamma^t r_t] = \sum_s \rho(s) r_\pi(s)`, a scalar."""
    return jnp.sum(visitation(mdp, policy) * _mean_rewards(mdp, policy.probs))


# -- experience -------------------------------------------------------------------------------------------------------


@in_double
def draw(mdp: TabularMDP, policy: Categorical, key: Array, n: int, length: int) -> Rollouts:
    r"""Draw ``n`` trajectories of ``length`` steps; states and actions are int32.

    Whole trajectories have the process's horizon as their length. Without one, what comes after ``length`` is worth
    :math:`\gamma^{length} V`.

    Raises:
        UsageError: the policy's shape is not that of the process, or it depends on time and is not given for so many steps.
    """
    probs, transitions = _probabilities(mdp, policy, length), jnp.asarray(mdp.transitions)
    first, later = jax.random.split(key)
    start = _choose(jnp.broadcast_to(jnp.asarray(mdp.initial), (n, mdp.n_states)), jax.random.uniform(first, (n,)))

    def step(state: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        probs, numbers = now
        action = _choose(probs[state], numbers[0])
        return _choose(transitions[state, action], numbers[1]), (state, action)

    _, (states, actions) = jax.lax.scan(step, start, (probs, jax.random.uniform(later, (length, 2, n))))
    return Rollouts(states.T, actions.T, jnp.asarray(mdp.rewards)[states, actions].T)


def _choose(probs: Array, number: Array) -> Array:
    """Return the outcome ``[...]`` that a uniform number in [0, 1) falls on; ``probs`` ``[..., outcomes]``."""
    bounds = jnp.cumsum(probs, -1)
    # Times their sum, which may miss 1 by a bit: so that what has no probability is not what is left over.
    return jnp.sum(bounds <= number[..., None] * bounds[..., -1:], -1, dtype=jnp.int32)


@in_double
def terminal_states(mdp: TabularMDP) -> np.ndarray:
    """Return which states are never left and pay nothing, bool ``[S]``: an episode may end there, with a value of 0."""
    kept = np.diagonal(np.asarray(mdp.transitions), axis1=0, axis2=2)  # [A, S]
    return np.all(kept == 1.0, 0) & np.all(np.asarray(mdp.rewards) == 0.0, -1)


class TabularState(NamedTuple):
    """Where an episode is."""

    state: Array
    time: Array


@dataclass(frozen=True, eq=False)
class TabularEnvironment:
    """A tabular process as a compiled environment, for any agent; observations and actions are Discrete.

    An episode terminates in a state that is never left and pays nothing (:func:`terminal_states`), and at the horizon of a
    process that has one. It is cut after ``time_limit`` steps, so that the value of the last state still counts. So the
    return of an episode has the mean J, but for what comes after the time limit. ``params`` is the process itself. The time is
    not observed: with a horizon, an agent's policy is one of those that do not depend on it.

    Example:
        >>> mdp = random_mdp(jax.random.PRNGKey(0), n_states=4, n_actions=2, gamma=0.9)
        >>> agent = jumar.TRPO(TabularEnvironment(mdp), gamma=0.9, net_arch=())  # a tabular softmax policy

    Raises:
        UsageError: ``time_limit`` is below 1, or not given where the process has no horizon.
    """

    mdp: TabularMDP
    time_limit: int | None = None

    def __post_init__(self) -> None:
        if self.time_limit is None:
            if self.mdp.horizon is None:
                raise UsageError("time_limit=None must be at least 1: the process has no horizon of its own.")
        elif not isinstance(self.time_limit, (int, np.integer)) or self.time_limit < 1:
            raise UsageError(f"time_limit={self.time_limit} must be at least 1, and a whole number.")

    @property
    def observation_space(self) -> spaces.Discrete:
        """The states."""
        return spaces.Discrete(self.mdp.n_states)

    @property
    def action_space(self) -> spaces.Discrete:
        """The actions."""
        return spaces.Discrete(self.mdp.n_actions)

    @property
    def params(self) -> TabularMDP:
        """The process."""
        return self.mdp

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit, in steps."""
        return None if self.time_limit is None else int(self.time_limit)

    def reset(self, key: Array, params: TabularMDP) -> tuple[TabularState, Array]:
        """Draw the first state."""
        state = _choose(jnp.asarray(params.initial), jax.random.uniform(key))
        return TabularState(state, jnp.zeros((), jnp.int32)), state

    def step(
        self, key: Array, state: TabularState, action: Array, params: TabularMDP
    ) -> tuple[TabularState, Array, Array, Array, Array, dict[str, Any]]:
        """Draw the next state."""
        reward = jnp.asarray(params.rewards)[state.state, action]
        successor = _choose(jnp.asarray(params.transitions)[state.state, action], jax.random.uniform(key))
        time = state.time + 1
        terminated = _reached(self.mdp.horizon, time) | _is_terminal(params, successor)
        return TabularState(successor, time), successor, reward, terminated, _reached(self.time_limit, time), {}


def _is_terminal(mdp: TabularMDP, state: Array) -> Array:
    """Return whether the state is one of :func:`terminal_states`; the process may be a traced one."""
    kept, rewards = jnp.asarray(mdp.transitions)[state, :, state], jnp.asarray(mdp.rewards)[state]
    return jnp.all(kept == 1.0) & jnp.all(rewards == 0.0)


def _reached(limit: int | None, time: Array) -> Array:
    return jnp.zeros((), bool) if limit is None else time >= limit
