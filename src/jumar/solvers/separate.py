"""The solver of methods that bound the policy's move: the policy moves by itself, the critic learns by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.problem import Climb, Diagnostics, Parameters, Problem
from jumar.solvers.joint import Climber
from jumar.solvers.natural import PolicySolver
from jumar.trajectory import Batch


@dataclass(frozen=True)
class Separate:
    """Moves the policy once on the whole batch, then fits the critic to the value targets."""

    policy: PolicySolver
    critic: Climber

    def init(self, parameters: Parameters) -> Any:
        """Return the states of both."""
        return {"policy": self.policy.init(parameters["policy"]), "critic": self.critic.init(parameters["critic"])}

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Move both; the scalars of the critic's climb are named ``critic_*``, except for its loss."""
        flat, unravel = ravel_pytree(parameters["policy"])
        batch = problem.prepare(problem.estimate(parameters))
        moved = self.policy.move(problem, flat, unravel, batch, state["policy"], remaining, jax.random.fold_in(key, 1))
        policy = unravel(moved.flat)
        _, numbers = problem.policy_objective(policy, batch)

        def objective(critic: Parameters, rows: Batch) -> tuple[Array, Diagnostics]:
            loss, about = problem.critic_loss(critic, rows)
            return -loss, about

        climb = Climb(objective, lambda critic: problem.estimate({**parameters, "critic": critic}))
        critic, critic_state, about = self.critic.climb(climb, parameters["critic"], state["critic"], remaining, key)
        loss = {"value_loss": about.pop("value_loss")}
        record = {**numbers, **moved.about, **loss, **{f"critic_{name}": x for name, x in about.items()}}
        states = {"policy": moved.state, "critic": critic_state}
        return {"policy": policy, "critic": critic}, states, record
