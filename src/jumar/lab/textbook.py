r"""The updates of the book, Algorithms 12.1 to 12.6, as ``update(theta, key)`` on any problem's own parameters.

Each is a small frozen object. What it knows of the problem is a :class:`~jumar.lab.local_models.Model`: estimates from
rollouts (``Sampled``, the book's way), exact quantities (``ExactRegulator``), or functions of your own (``Known``). It computes
the step by the solvers that agents are trained with: :class:`~jumar.solvers.Optimiser`, :class:`~jumar.solvers.Dense`,
:class:`~jumar.solvers.Boundary`, :class:`~jumar.solvers.LineSearch`, :class:`~jumar.solvers.Repeated`.

An update never returns a number that is not finite for parameters that are: such a step is not taken.

Two bounds have the name :math:`\epsilon` in the book. That of the natural step is on the divergence of whole *trajectories*,
as the Fisher matrix is theirs; the constraint of the line search is a mean per *step*, some ``d`` times smaller.

Example:
    >>> model = Sampled(RegulatorProcess(Regulator(gamma=0.9)), m=10)
    >>> update = TrustRegionUpdate(model, epsilon=1.0)
    >>> ascend(update, np.array([-0.2, 0.4]), jax.random.PRNGKey(0), n=20).thetas

Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, chapter 12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jumar.errors import UsageError
from jumar.lab.arguments import check_positive
from jumar.lab.local_models import LocalModel, Model, check_known
from jumar.lab.precision import in_double
from jumar.schedules import Schedule, schedule
from jumar.solvers import Ascent, Boundary, Dense, LineSearch, Optimiser, Repeated
from jumar.solvers.natural import Direction, LinearSolver, PolicyMove, Unravel, solved, sound_step
from jumar.solvers.problem import Climb, Problem
from jumar.trajectory import Batch

Compiled = TypeVar("Compiled", bound=Callable[..., Any])


def _compiled(method: Compiled) -> Compiled:
    """Return the method as one program for each object, in double precision."""
    return cast(Compiled, in_double(jax.jit(method, static_argnums=0)))


# -- results -----------------------------------------------------------------------------------------------------------


class Updated(NamedTuple):
    """What an update did."""

    theta: Array
    """The new parameters, ``[d]``."""
    gradient: Array
    """The gradient of U that it had, ``[d]``."""
    direction: Array
    """Which way it went, before a length was chosen: the gradient, limited or not, or the natural gradient; ``[d]``."""


class TrustRegionUpdated(NamedTuple):
    """What an update with a line search did."""

    theta: Array
    """The new parameters, ``[d]``; the old ones to the last bit where nothing was accepted."""
    gradient: Array
    """The gradient of U that it had, ``[d]``."""
    direction: Array
    """The natural gradient, ``[d]``."""
    whole: Array
    """The parameters after the whole natural step, where the line search begins, ``[d]``."""
    objective_before: Array
    """The surrogate objective before the step."""
    objective: Array
    """The surrogate objective at the new parameters."""
    constraint: Array
    """The surrogate constraint at the new parameters."""
    shrinks: Array
    """How many times the step was shortened, int32."""
    accepted: Array
    """Whether a step was taken, boolean."""


class ClampedUpdated(NamedTuple):
    """What an update with the clamped objective did."""

    theta: Array
    """The new parameters, ``[d]``."""
    gradient: Array
    """The gradient of the clamped objective at the old parameters, ``[d]``."""
    objective_before: Array
    """The clamped objective before the steps."""
    objective: Array
    """The clamped objective after them."""
    constraint: Array
    """The surrogate constraint at the new parameters, which the update does not look at."""


# -- Algorithms 12.1 and 12.2 ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicyGradientUpdate:
    r"""Algorithm 12.1: :math:`\theta' = \theta + \alpha \nabla U(\theta)`, with the gradient limited by Algorithm 12.2.

    Raises:
        UsageError: a bound or a norm leaves no gradient to go along.
    """

    model: Model
    step_factor: Schedule | float
    r"""The :math:`\alpha`: 0.2, or one that decays, ``Exponential(0.2, 0.02)`` of :mod:`jumar.schedules`."""
    max_norm: float | None = None
    """Scale the gradient down to this Euclidean norm; the book's usual one is 1. Its direction stays."""
    bounds: tuple[float, float] | None = None
    """Clip every entry of the gradient to ``(a, b)``; the book's usual ones are -1 and 1. Its direction changes."""

    def __post_init__(self) -> None:
        if self.max_norm is not None and not self.max_norm > 0.0:
            raise UsageError(f"max_norm={self.max_norm} must be above 0.")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise UsageError(f"bounds={self.bounds} must be a lower and an upper one, as (-1.0, 1.0).")

    @property
    def optimiser(self) -> Optimiser:
        """The shipped optimiser that it is."""
        low, high = self.bounds or (None, None)
        return Optimiser(schedule(self.step_factor), optax.identity(), self.max_norm, high, low)

    @_compiled
    def update(self, theta: Array, key: Array, remaining: float | Array = 1.0) -> Updated:
        """Take the step."""
        gradient = self.model.at(theta, key).gradient
        state, nowhere = self.optimiser.init(theta), jnp.zeros_like(theta)
        limited, _ = self.optimiser.transformation.update(gradient, state)
        change, _ = self.optimiser.ascend(nowhere, gradient, state, jnp.asarray(remaining, theta.dtype))
        return Updated(sound_step(change, gradient).taken_from(theta), gradient, cast(Array, limited))


# -- Algorithms 12.3 and 12.4 ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RestrictedPolicyGradient:
    r"""Algorithm 12.3: :math:`\theta' = \theta + u \sqrt{2 \epsilon / u^T u}` along the gradient :math:`u`.

    The step's length is always :math:`\sqrt{2 \epsilon}`, and 0 where the gradient is 0.

    Raises:
        UsageError: ``epsilon`` is not above 0.
    """

    model: Model
    epsilon: float
    r"""The bound on :math:`\frac12 \|\theta' - \theta\|^2`."""

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)

    @_compiled
    def update(self, theta: Array, key: Array, remaining: float | Array = 1.0) -> Updated:
        """Take the step."""
        gradient = self.model.at(theta, key).gradient
        size = gradient @ gradient
        return _to_the_boundary(theta, gradient, Direction(gradient, size, size, {}, ()), self.epsilon)


@dataclass(frozen=True)
class NaturalPolicyGradient:
    r"""Algorithm 12.4: :math:`\theta' = \theta + u \sqrt{2 \epsilon / \nabla U^T u}` with :math:`u = F^{-1} \nabla U`.

    F is that of whole trajectories, so that :math:`\epsilon` bounds their divergence to second order. With fewer rollouts than
    parameters it is singular; the direction of least norm is taken then. With whole returns the gradient lies in the range of
    F; with other signals its projection on that range is used.

    Raises:
        UsageError: ``epsilon`` is not above 0, or the model has no Fisher matrix.
    """

    model: Model
    epsilon: float
    r"""The bound on :math:`\frac12 (\theta' - \theta)^T F (\theta' - \theta)`."""
    system: LinearSolver = field(default_factory=Dense)
    """How the system is solved: ``ConjugateGradient(10)`` for many parameters (the book's footnote)."""

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        check_known(self.model, "fisher")

    @_compiled
    def update(self, theta: Array, key: Array, remaining: float | Array = 1.0) -> Updated:
        """Take the step."""
        return self.step(theta, self.model.at(theta, key))

    @in_double
    def step(self, theta: Array, local: LocalModel) -> Updated:
        """Take the step in a model that is there already: the book's ``natural_update``."""
        direction = solved(self.system, lambda vector: local.fisher @ vector, 0.0, local.gradient)
        return _to_the_boundary(theta, local.gradient, direction, self.epsilon)


def _to_the_boundary(theta: Array, gradient: Array, direction: Direction, epsilon: float) -> Updated:
    length = Boundary(epsilon)(direction, jnp.ones((), theta.dtype))
    return Updated(sound_step(length * direction.x, gradient).taken_from(theta), gradient, direction.x)


# -- Algorithm 12.5 ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrustRegionUpdate:
    r"""Algorithm 12.5: the natural step, shortened until :math:`f(\theta') > f(\theta)` and :math:`g(\theta') \le \epsilon`.

    The direction comes from the model's gradient (with ``Sampled``, of whole returns), and steps are accepted by its surrogate
    objective (with ``Sampled``, of rewards-to-go). So it may be that no part of a step is good enough, and the book's loop does
    not end. Here it ends after ``most`` tries, and the parameters stay what they were.

    Raises:
        UsageError: a number is out of range, or the model lacks a function.
    """

    model: Model
    epsilon: float
    """The bound: on the divergence of trajectories where the step is made, on its mean per step where it is checked."""
    shrink: float = 0.5
    r"""The :math:`\alpha` of the book, in (0, 1)."""
    most: int = 30
    """How many steps are tried, the whole one included."""
    system: LinearSolver = field(default_factory=Dense)
    """How the system of the natural gradient is solved."""

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        if not 0.0 < self.shrink < 1.0:
            raise UsageError(f"shrink={self.shrink} must be between 0 and 1; the book has 0.5.")
        if self.most < 1:
            raise UsageError(f"most={self.most} must be at least 1.")
        check_known(self.model, "fisher", "objective", "constraint")

    @_compiled
    def update(self, theta: Array, key: Array, remaining: float | Array = 1.0) -> TrustRegionUpdated:
        """Take the step."""
        return self.step(theta, self.model.at(theta, key))

    @in_double
    def step(self, theta: Array, local: LocalModel) -> TrustRegionUpdated:
        """Take the step in a model that is there already: of given rollouts, say."""
        natural = NaturalPolicyGradient(self.model, self.epsilon, self.system).step(theta, local)
        search = LineSearch(_To(natural.theta), self.epsilon, self.shrink, self.most, mean=_itself)
        one, key = jnp.ones((), theta.dtype), jax.random.PRNGKey(0)  # nothing is drawn
        move = search.move(_problem(local), theta, _same, cast(Batch, None), (), one, key)
        accepted = move.about["step_fraction"] > 0.0
        return TrustRegionUpdated(
            move.flat,
            *natural[1:],
            whole=natural.theta,
            objective_before=local.objective(theta),
            objective=local.objective(move.flat),
            constraint=local.constraint(move.flat),
            shrinks=move.about["line_search_tries"].astype(jnp.int32) - 1,
            accepted=accepted,
        )


@dataclass(frozen=True)
class _To:
    """The policy solver that goes to given parameters, for the line search to go around."""

    target: Array

    def init(self, parameters: Any) -> Any:
        return ()

    def move(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, state: Any, remaining: Array, key: Array
    ) -> PolicyMove:
        return PolicyMove(self.target, (), {})


def _problem(local: LocalModel) -> Problem:
    """Return the model as a solver's problem: parameters stand for the distributions, which only its functions look into."""
    return Problem(
        gain=lambda new, _: (local.objective(new), {}),
        critic_loss=lambda *_: (jnp.zeros(()), {}),
        distribution=cast(Any, lambda parameters, _: parameters),
        estimate=lambda _: cast(Batch, None),
        divergence=lambda _, new, __: local.constraint(new),
    )


def _same(x: Array) -> Array:
    return x


def _itself(mean: Array, _: Batch) -> Array:
    return mean


# -- Algorithm 12.6 ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClampedSurrogateUpdate:
    r"""Algorithm 12.6: ``k_max`` steps :math:`\theta' \leftarrow \theta' + \alpha \nabla f` up the clamped objective.

    All are on the same rollouts. With ``Sampled(..., judged_by=reward_to_go)`` it is the book's algorithm, which clamps by the
    sign of the reward-to-go; with ``judged_by=advantage`` it is equation 12.22. The unclamped gradients of the two agree in
    expectation, the clamped ones do not.

    Raises:
        UsageError: a number is out of range, or the model lacks the clamped objective.
    """

    model: Model
    epsilon: float
    r"""The ratio is clamped to :math:`1 \pm \epsilon`; the book has 0.2."""
    step_factor: Schedule | float
    r"""The :math:`\alpha`."""
    k_max: int
    """How many steps."""

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        if self.k_max < 1:
            raise UsageError(f"k_max={self.k_max} must be at least 1.")
        check_known(self.model, "clamped", "constraint")

    @_compiled
    def update(self, theta: Array, key: Array, remaining: float | Array = 1.0) -> ClampedUpdated:
        """Take the steps."""
        return self.step(theta, self.model.at(theta, key), remaining)

    @in_double
    def step(self, theta: Array, local: LocalModel, remaining: float | Array = 1.0) -> ClampedUpdated:
        """Take the steps in a model that is there already."""

        def objective(new: Array, _: Any) -> tuple[Array, dict[str, Array]]:
            return local.clamped(new, self.epsilon), {}

        # The solvers' batches have no part in it: everything is in the model's functions.
        climb = Climb(objective, lambda _: cast(Batch, ()))
        climber = Repeated(Ascent(Optimiser(schedule(self.step_factor), optax.identity())), self.k_max)
        share, key = jnp.asarray(remaining, theta.dtype), jax.random.PRNGKey(0)  # nothing is drawn
        new, _, _ = climber.climb(climb, theta, climber.init(theta), share, key)
        gradient = jax.grad(lambda new: local.clamped(new, self.epsilon))(theta)
        new = sound_step(new - theta, gradient).taken_from(theta)
        before, after = (local.clamped(at, self.epsilon) for at in (theta, new))
        return ClampedUpdated(new, gradient, before, after, local.constraint(new))
