"""Where the time of one update of Jumar's TRPO goes; the last line of the output is a JSON object.

``profile`` has milliseconds, medians over repetitions that are taken in turns, all on the same rows of experience:

- ``update``: the whole, as training does it.
- ``gradient``: one gradient of the policy's objective, of several taken one after the other in one program.
- ``products``: the direction: conjugate gradients to their last iteration, and one more product for the step's length.
- ``product``: one of these products; the linearisation that all of them use is shared out among them.
- ``search``: the line search.
- ``critic``: the epochs of the critic.

Beside the sizes of the rollout and of its environment it takes settings of TRPO.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from peak import Program, seconds

import jumar
from jumar.collecting.host import HostRunner
from jumar.collecting.programs import CompiledRunner
from jumar.solvers import ConjugateGradient, LineSearch, MeanKL, Separate, Step
from jumar.solvers.natural import PolicyMove
from jumar.solvers.problem import Climb, Problem
from jumar.trajectory import Trajectory

EVERYTHING = np.float32(1.0)
"""The share of training that is left."""


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True, help="an id with its backend")
    for name in ("--n-envs", "--n-steps", "--cg-max-steps", "--n-critic-updates", "--batch-size"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--total-timesteps", type=int, required=True, help="rows to time updates on")
    return parser.parse_args()


class Seen:
    """A solver that leaves everything as it is and remembers the problem that it was given."""

    problem: Problem

    def init(self, parameters: Any) -> Any:
        """Return nothing."""
        return ()

    def solve(self, problem: Problem, parameters: Any, state: Any, remaining: Any, key: Any) -> tuple[Any, Any, Any]:
        """Remember the problem."""
        self.problem = problem
        return parameters, state, {}


@dataclass(frozen=True)
class Given:
    """A step of the policy that is known already."""

    flat: Any

    def init(self, parameters: Any) -> Any:
        """Return nothing."""
        return ()

    def move(
        self, problem: Any, flat: Any, unravel: Any, batch: Any, state: Any, remaining: Any, key: Any
    ) -> PolicyMove:
        """Take it."""
        return PolicyMove(self.flat, state, {})


class Profile:
    """The programs that an update is made of, for one agent and one rollout."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        names = ("n_envs", "n_steps", "cg_max_steps", "n_critic_updates", "batch_size")
        settings = {name: getattr(arguments, name) for name in names}
        self.iterations: int = arguments.cg_max_steps
        self.agent = jumar.TRPO(arguments.env, preset="none", cg_tolerance=0.0, **settings)
        self.agent.learn(1)
        training: Any = self.agent._training
        self.update, self.learner = training.update, training.learner
        self.key = jax.random.PRNGKey(0)
        self.trajectory = jax.block_until_ready(collect(training, self.key))
        seen = Seen()
        replace(self.update, solver=seen).improve(self.learner, self.trajectory, EVERYTHING, self.key)
        self.problem = seen.problem
        prepared = jax.jit(lambda parameters: seen.problem.prepare(seen.problem.estimate(parameters)))
        self.batch = prepared(self.learner.parameters)

    def programs(self) -> dict[str, Program]:
        """Return what to time, by name; ``gradient`` and ``product`` are as many of them as there are products."""
        problem, solver, everything, key = self.problem, self.update.solver, jnp.asarray(EVERYTHING), self.key
        assert isinstance(solver, Separate)
        assert isinstance(solver.policy, LineSearch)
        search, step, fitting = solver.policy, solver.policy.step, solver.critic
        assert isinstance(step, Step)
        assert isinstance(step.geometry, MeanKL)
        assert isinstance(step.geometry.system, ConjugateGradient)
        flat, unravel = ravel_pytree(self.learner.parameters["policy"])
        gradient_of = jax.grad(lambda flat, batch: problem.policy_objective(unravel(flat), batch)[0])

        @jax.jit
        def update(learner: Any, trajectory: Any) -> Any:
            return self.update.improve(learner, trajectory, everything, key)

        @jax.jit
        def gradients(flat: Any, batch: Any) -> Any:
            def ascend(_: Any, flat: Any) -> Any:
                return flat + 1e-6 * gradient_of(flat, batch)

            return jax.lax.fori_loop(0, self.count, ascend, flat)

        @jax.jit
        def products(flat: Any, batch: Any, gradient: Any) -> Any:
            return step.geometry.direction(problem, flat, unravel, batch, gradient, (), key)

        @jax.jit
        def searched(flat: Any, batch: Any, there: Any) -> Any:
            return replace(search, step=Given(there)).move(problem, flat, unravel, batch, (), everything, key)

        @jax.jit
        def critic(parameters: Any, batch: Any, state: Any) -> Any:
            def objective(critic: Any, rows: Any) -> Any:
                loss, about = problem.critic_loss(critic, rows)
                return -loss, about

            return fitting.climb(Climb(objective, lambda critic: batch), parameters, state, everything, key)

        gradient = jax.jit(gradient_of)(flat, self.batch)
        there = jax.jit(lambda flat, batch: step.move(problem, flat, unravel, batch, (), everything, key).flat)(
            flat, self.batch
        )
        critic_parameters, critic_state = self.learner.parameters["critic"], self.learner.solver["critic"]
        return {
            "update": lambda: update(self.learner, self.trajectory),
            "gradient": lambda: gradients(flat, self.batch),
            "products": lambda: products(flat, self.batch, gradient),
            "search": lambda: searched(flat, self.batch, there),
            "critic": lambda: critic(critic_parameters, self.batch, critic_state),
        }

    @property
    def count(self) -> int:
        """How many products a direction takes: one an iteration, and one for the length."""
        return self.iterations + 1


def collect(training: Any, key: Any) -> Trajectory:
    """Return a rollout of the training's policy."""
    runner, learner, collector, update = training.runner, training.learner, training.collector, training.update
    acting = update.acting(learner, np.float32(1.0))
    if isinstance(runner, CompiledRunner):
        trajectory = jax.jit(runner._collect)(acting, collector, key)[1]
    else:
        assert isinstance(runner, HostRunner)
        assert runner._gatherer is not None
        carry = update.behaviour.begin_rollout(collector.carry)
        gathered, _, _ = runner._gatherer.gather(acting, carry, collector.episode_start, key)
        gathered = {**gathered, "carry": carry, "critic_carry": ()}
        trajectory = Trajectory(**gathered, log_probs=jnp.zeros(gathered["rewards"].shape, jnp.float32))
    return jax.jit(update.completed)(learner, trajectory)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time all parts in turns."""
    profile = Profile(arguments)
    programs = profile.programs()
    for program in programs.values():
        seconds(program)  # compiles it
    rollout = arguments.n_envs * arguments.n_steps
    repeats = max(3, arguments.total_timesteps // rollout)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            times[name].append(1e3 * seconds(program))
    found = {name: statistics.median(values) for name, values in times.items()}
    each = {"gradient": found["gradient"] / profile.count, "product": found["products"] / profile.count}
    return {
        "total_timesteps": repeats * rollout,
        "steps_per_second": 1e3 * rollout / sum(found.values()),  # of all parts, so that a round takes as long as asked
        "profile": {**found, **each},
    }


if __name__ == "__main__":
    print(json.dumps(measure(read_arguments())))
