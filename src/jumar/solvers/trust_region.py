"""The trust region: a step of the policy is shortened until it is near enough and better than staying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.policies.distributions import Distribution
from jumar.solvers.natural import PolicyMove, PolicySolver, Unravel
from jumar.solvers.problem import Divergence, Mean, Parameters, Problem, mean_over_steps
from jumar.trajectory import Batch


class Acceptance(Protocol):
    """A part that says which candidates of a line search are good enough, however near they are."""

    def test(self, problem: Problem, batch: Batch, old: Distribution) -> Callable[[Distribution], Array]:
        """Return the test of a candidate's distributions, given those of the policy before; it is false for NaN."""
        ...


@dataclass(frozen=True)
class Better:
    r"""The acceptance of TRPO: :math:`L(\theta') > L(\theta)`."""

    def test(self, problem: Problem, batch: Batch, old: Distribution) -> Callable[[Distribution], Array]:
        """Return the test of a candidate's distributions."""
        before = problem.gain(old, batch)[0]
        return lambda new: problem.gain(new, batch)[0] > before


@dataclass(frozen=True)
class Within:
    r"""The acceptance of what is near by a divergence of its own: :math:`E[D(\pi_{old}, \pi)] \le \delta`."""

    divergence: Divergence
    delta: float
    mean: Mean = mean_over_steps

    def test(self, problem: Problem, batch: Batch, old: Distribution) -> Callable[[Distribution], Array]:
        """Return the test of a candidate's distributions."""
        return lambda new: self.mean(self.divergence(old, new, batch), batch) <= self.delta


@dataclass(frozen=True)
class Both:
    """The acceptance of what two others accept."""

    first: Acceptance
    second: Acceptance

    def test(self, problem: Problem, batch: Batch, old: Distribution) -> Callable[[Distribution], Array]:
        """Return the test of a candidate's distributions."""
        first, second = (each.test(problem, batch, old) for each in (self.first, self.second))
        return lambda new: first(new) & second(new)


@dataclass(frozen=True)
class LineSearch:
    r"""Backtracking around any step of the policy.

    The step ``d`` of the solver inside is tried at the fractions :math:`1, \alpha, \alpha^2, \dots`; the first is taken for
    which, on the batch, the mean divergence, :math:`E[KL(\pi_{old} \| \pi)]` if the problem has no other, is at most
    :math:`\delta` and which is good enough: for TRPO, :math:`L(\theta + \alpha^j d) > L(\theta)`.

    After ``most`` fractions the parameters stay what they were, to the last bit.

    Source: Schulman et al. 2015, *Trust Region Policy Optimization*, appendix C.
    """

    step: PolicySolver
    delta: float
    """The largest mean divergence."""
    shrink: float = 0.8
    r"""The :math:`\alpha`, in (0, 1)."""
    most: int = 10
    """How many fractions are tried."""
    acceptance: Acceptance = Better()
    """What is good enough."""
    mean: Mean = mean_over_steps
    """What the mean divergence is a mean over."""

    def init(self, parameters: Parameters) -> Any:
        """Return the state of the solver inside."""
        return self.step.init(parameters)

    def move(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, state: Any, remaining: Array, key: Array
    ) -> PolicyMove:
        """Take the step, or a part of it, or none."""
        whole = self.step.move(problem, flat, unravel, batch, state, remaining, key)
        change = whole.flat - flat
        old = problem.distribution(unravel(flat), batch)
        good_enough = self.acceptance.test(problem, batch, old)

        def tried(fraction: Array) -> Array:
            candidate = problem.distribution(unravel(flat + fraction * change), batch)
            near = self.mean(problem.divergence(old, candidate, batch), batch) <= self.delta
            return near & good_enough(candidate)  # both are False for NaN

        def unfinished(search: tuple[Array, Array]) -> Array:
            tries, accepted = search
            return ~accepted & (tries < self.most)

        def next_try(search: tuple[Array, Array]) -> tuple[Array, Array]:
            tries, _ = search
            return tries + 1, tried(jnp.power(jnp.asarray(self.shrink, flat.dtype), tries))

        tries, accepted = jax.lax.while_loop(unfinished, next_try, (jnp.zeros((), jnp.int32), jnp.zeros((), bool)))
        fraction = jnp.where(accepted, jnp.power(jnp.asarray(self.shrink, flat.dtype), tries - 1), 0.0)
        about = {**whole.about, "step_fraction": fraction, "line_search_tries": tries.astype(jnp.float32)}
        return PolicyMove(jnp.where(accepted, flat + fraction * change, flat), whole.state, about)
