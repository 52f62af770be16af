"""The solvers of methods that treat policy and critic apart: each moves by itself.

In two of them neither needs what the other becomes (:class:`Apart`): the policy moves by the critic as it was, in a step of
its own (:class:`Separate`), or over the same minibatches as the critic (:class:`SideBySide`). In others the policy's advantages
are measured against a critic that was just fitted to other trajectories (:class:`Independent`), or there is none
(:class:`PolicyAlone`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.solvers.joint import Climber
from jumar.solvers.natural import PolicyMove, PolicySolver, Unravel
from jumar.solvers.problem import Climb, Diagnostics, Parameters, Problem
from jumar.trajectory import Batch


@dataclass(frozen=True)
class Climbing:
    """A climber as a way to move the policy: it goes up the policy's objective on the batch, whole or in minibatches."""

    climber: Climber

    def init(self, parameters: Parameters) -> Any:
        """Return the climber's state."""
        return self.climber.init(parameters)

    def move(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, state: Any, remaining: Array, key: Array
    ) -> PolicyMove:
        """Climb."""
        climb = Climb(problem.policy_objective, lambda _: batch)
        policy, state, about = self.climber.climb(climb, unravel(flat), state, remaining, key)
        return PolicyMove(ravel_pytree(policy)[0], state, about)


class Moved(NamedTuple):
    """A policy after its move."""

    policy: Parameters
    state: Any
    record: Diagnostics


def move_policy(
    solver: PolicySolver,
    problem: Problem,
    parameters: Parameters,
    batch: Batch,
    state: Any,
    remaining: Array,
    key: Array,
) -> Moved:
    """Move the policy of joint parameters on the whole batch, not yet prepared."""
    flat, unravel = ravel_pytree(parameters["policy"])
    batch = problem.prepare(batch)
    moved = solver.move(problem, flat, unravel, batch, state, remaining, key)
    policy = unravel(moved.flat)
    _, numbers = problem.policy_objective(policy, batch)
    return Moved(policy, moved.state, {**numbers, **moved.about})


def fit_critic(
    climber: Climber,
    problem: Problem,
    parameters: Parameters,
    estimate: Callable[[Parameters], Batch],
    state: Any,
    remaining: Array,
    key: Array,
    vf_coef: float = 1.0,
) -> tuple[Parameters, Any, Diagnostics]:
    """Fit the critic of joint parameters to the targets of ``estimate``, which takes joint parameters.

    The gradient is that of ``vf_coef`` times the loss. The scalars of the climb are named ``critic_*``, except for the loss.
    """

    def objective(critic: Parameters, rows: Batch) -> tuple[Array, Diagnostics]:
        loss, about = problem.critic_loss(critic, rows)
        return -vf_coef * loss, about

    climb = Climb(objective, lambda critic: estimate({**parameters, "critic": critic}))
    critic, state, about = climber.climb(climb, parameters["critic"], state, remaining, key)
    loss = {"value_loss": about.pop("value_loss")}
    return critic, state, {**loss, **{f"critic_{name}": x for name, x in about.items()}}


def is_about_the_critic(name: str) -> bool:
    """Whether a scalar of the flight record is one of :func:`fit_critic`."""
    return name == "value_loss" or name.startswith("critic_")


@dataclass(frozen=True)
class PolicyAlone:
    """Moves the policy on the whole batch; there is no critic to fit."""

    policy: PolicySolver

    def init(self, parameters: Parameters) -> Any:
        """Return the policy solver's state."""
        return self.policy.init(parameters["policy"])

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Move the policy."""
        moved = move_policy(self.policy, problem, parameters, problem.estimate(parameters), state, remaining, key)
        return {**parameters, "policy": moved.policy}, moved.state, moved.record


@dataclass(frozen=True)
class Apart:
    """A solver whose policy and critic move apart: neither needs what the other becomes, so both can move at once."""

    policy: Any
    """What moves the policy."""
    critic: Climber

    def init(self, parameters: Parameters) -> Any:
        """Return the states of both."""
        return {"policy": self.policy.init(parameters["policy"]), "critic": self.critic.init(parameters["critic"])}


@dataclass(frozen=True)
class Separate(Apart):
    """Moves the policy once on the whole batch, then fits the critic to the value targets."""

    policy: PolicySolver

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Move the policy by the critic as it was, and fit the critic."""
        batch = problem.estimate(parameters)
        moved = move_policy(
            self.policy, problem, parameters, batch, state["policy"], remaining, jax.random.fold_in(key, 1)
        )
        critic, critic_state, about = fit_critic(
            self.critic, problem, parameters, problem.estimate, state["critic"], remaining, key
        )
        states = {"policy": moved.state, "critic": critic_state}
        return {"policy": moved.policy, "critic": critic}, states, {**moved.record, **about}


@dataclass(frozen=True)
class SideBySide(Apart):
    """Climbs the policy's objective and the critic's loss over the same minibatches, each by a gradient of its own.

    It does what :class:`Joint` does, but for what a joint gradient has in common: its norm, and the end of the passes where a
    divergence ends them, which are the policy's own here.
    """

    policy: Climber
    vf_coef: float
    """The weight of the critic's loss. Adam divides it out, but for what is limited before."""

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Climb each; the same key gives both the same minibatches."""
        batch = problem.estimate(parameters)
        climb = Climb(problem.policy_objective, lambda _: batch, problem.prepare)
        policy, policy_state, record = self.policy.climb(climb, parameters["policy"], state["policy"], remaining, key)
        critic, critic_state, about = fit_critic(
            self.critic, problem, parameters, problem.estimate, state["critic"], remaining, key, self.vf_coef
        )
        states = {"policy": policy_state, "critic": critic_state}
        return {"policy": policy, "critic": critic}, states, {**record, **about}


@dataclass(frozen=True)
class Independent:
    """Fits the critic to the trajectories of some environments, then moves the policy on those of the others.

    A baseline may not depend on the actions whose gradient it is part of; fitted to the same trajectories it does, a
    little. The first half of the environments (rounded up) has the baseline's trajectories.

    Source: course notes *Policy Gradients*, definition 4.4.1 (a learned baseline from N trajectories, the gradient from M
    independent ones).
    """

    policy: PolicySolver
    critic: Climber
    n_envs: int
    """At least 2."""

    def init(self, parameters: Parameters) -> Any:
        """Return the states of both."""
        return {"policy": self.policy.init(parameters["policy"]), "critic": self.critic.init(parameters["critic"])}

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Fit the critic, value the other trajectories with it, and move the policy."""

        def some(for_baseline: bool) -> Callable[[Parameters], Batch]:
            def estimate(parameters: Parameters) -> Batch:
                batch = problem.estimate(parameters)
                rows = batch.weights.shape[0]  # those of an environment lie together
                first = jnp.arange(rows) < rows // self.n_envs * ((self.n_envs + 1) // 2)
                chosen = (first == for_baseline).reshape(rows, *(1,) * (batch.weights.ndim - 1))
                return batch._replace(weights=batch.weights * chosen)

            return estimate

        critic, critic_state, about = fit_critic(
            self.critic, problem, parameters, some(True), state["critic"], remaining, key
        )
        parameters = {**parameters, "critic": critic}
        batch = some(False)(parameters)
        moved = move_policy(
            self.policy, problem, parameters, batch, state["policy"], remaining, jax.random.fold_in(key, 1)
        )
        states = {"policy": moved.state, "critic": critic_state}
        return {"policy": moved.policy, "critic": critic}, states, {**moved.record, **about}
