r"""The worked examples and exercises of two textbooks, computed by Jumar's functions from the data as printed.

Printed values that differ are given next to each.

Sources: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, chapter 12 (Example 12.1, Exercises 12.2 and 12.3);
course notes on policy gradients (Example 4.6.1, the Bernoulli policy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.lab import textbook
from jumar.lab.arguments import ArrayLike
from jumar.lab.families import table
from jumar.lab.local_models import LocalModel, Sampled
from jumar.lab.precision import in_double
from jumar.lab.rollouts import Rollouts, discounts
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical, DiagGaussian
from jumar.solvers.fisher import scores, trajectory_fisher

# -- Example 12.1 and Exercises 12.1 and 12.2: one update of TRPO ----------------------------------------------------------


class TrustRegionExample(NamedTuple):
    r"""Rollouts of a policy :math:`N(\theta_1, \theta_2^2)` in a problem with one state, where the reward is the action."""

    actions: ArrayLike
    """``[N, T]``."""
    theta: ArrayLike
    """``[2]``."""
    epsilon: float
    """The bound: on the divergence of trajectories where the step is made, on that per step where it is checked."""
    gamma: float = 1.0
    """Discount."""


class TrustRegionNumbers(NamedTuple):
    """What an update of the example goes through."""

    fishers: ArrayLike
    r""":math:`\nabla \log p(\tau) \nabla \log p(\tau)^T` of each rollout, ``[N, 2, 2]``."""
    fisher: ArrayLike
    """Their mean, ``[2, 2]``."""
    gradient: ArrayLike
    """The mean of the scores times the returns, ``[2]``."""
    direction: ArrayLike
    r""":math:`u = F^{-1} g`, ``[2]``: a direction of ascent, which the book calls one of descent."""
    theta: ArrayLike
    """The parameters after the step, ``[2]``."""
    objective_before: ArrayLike
    """The surrogate objective before the step."""
    objective: ArrayLike
    """The surrogate objective after it."""
    divergence: ArrayLike
    """The surrogate constraint after it: the mean divergence per step."""


EXAMPLE_12_1 = TrustRegionExample(
    actions=np.array([[-0.532, 0.597, 1.947], [-0.263, -2.212, 2.364]]), theta=np.array([0.0, 1.0]), epsilon=0.1
)
"""The data of Example 12.1; only without a discount do they give the numbers printed."""

PRINTED_12_1 = TrustRegionNumbers(
    fishers=np.array([[[4.048, 2.878], [2.878, 2.046]], [[0.012, -0.838], [-0.838, 29.529]]]),
    fisher=np.array([[2.030, 1.020], [1.019, 118.115]]),
    gradient=np.array([2.030, 1.020]),
    direction=np.array([1.0, 0.0]),
    theta=np.array([0.314, 1.0]),
    objective_before=np.array(1.485),
    objective=np.array(2.110),
    divergence=np.array(0.049),
)
"""What the book prints for Example 12.1.

Three entries are wrong. The last one of the second rollout's matrix is 57.012 (29.529 is the mean of both); the last
one of the mean is 29.529 (118.115 is four times that: it is left from a draft with twice the second score); and the matrix
is symmetric, 1.020 on both sides. The direction is right, as the returns happen to be the first scores, so that the
gradient is the first column of F whatever the last entry is.
"""


@dataclass(frozen=True)
class OneState:
    r"""The example's problem as a :class:`~jumar.lab.local_models.Process`: one state, and the action is the reward."""

    gamma: float = 1.0
    """Discount."""
    depth: int = 3
    """How many steps there are."""

    def draw(self, theta: Array, key: Array, n: int) -> Rollouts:
        """Draw ``n`` trajectories."""
        noise = jax.random.normal(key, (n, self.depth))
        return _rewarded(theta[0] + theta[1] * noise)

    def distribution(self, theta: Array, states: Array) -> DiagGaussian:
        r"""Return :math:`N(\theta_1, \theta_2^2)` for each of the states ``[...]``."""
        return gaussian(theta, states)

    def log_prob(self, theta: Array, states: Array, actions: Array) -> Array:
        r"""Return :math:`\log \pi(a)`."""
        return gaussian(theta, actions).log_prob(actions[..., None])

    def state_values(self, theta: Array, states: Array) -> Array:
        r"""Return :math:`\theta_1 \sum_{k < d - t} \gamma^k`: each reward has the mean :math:`\theta_1`."""
        return theta[0] * jnp.cumsum(discounts(self.gamma, self.depth))[::-1] + jnp.zeros(states.shape)


@in_double
def trust_region_update(example: TrustRegionExample) -> TrustRegionNumbers:
    """Compute the update of the example, by :class:`jumar.lab.textbook.TrustRegionUpdate`; it does not shorten the step."""
    local = _model(example)
    found = textbook.TrustRegionUpdate(_sampled(example), example.epsilon).step(jnp.asarray(example.theta), local)
    each = action_scores(example)
    steps = jnp.ones(each.shape[:2])
    return TrustRegionNumbers(
        fishers=jnp.stack([trajectory_fisher(one[None], steps[:1]) for one in each]),
        fisher=local.fisher,
        gradient=found.gradient,
        direction=found.direction,
        theta=found.theta,
        objective_before=found.objective_before,
        objective=found.objective,
        divergence=found.constraint,
    )


@in_double
def action_scores(example: TrustRegionExample) -> Array:
    r"""Return :math:`\nabla \log \pi(a_t)` of each step, ``[N, T, 2]``."""
    actions = jnp.asarray(example.actions)
    return scores(lambda theta: gaussian(theta, actions).log_prob(actions[..., None]), jnp.asarray(example.theta))


@in_double
def surrogate_objective(example: TrustRegionExample, new: ArrayLike) -> Array:
    r"""Return the mean over rollouts and steps of :math:`w_t \gamma^t G_t`, with the ratio ``w`` and the reward-to-go ``G``.

    Its gradient at the old parameters is that of the reward-to-go, divided by the number of steps (Exercise 12.1).
    """
    return _model(example).objective(jnp.asarray(new))


@in_double
def surrogate_divergence(example: TrustRegionExample, new: ArrayLike) -> Array:
    r"""Return the mean over rollouts and steps of :math:`\gamma^t KL(\pi_{old} \| \pi)`."""
    return _model(example).constraint(jnp.asarray(new))


def _sampled(example: TrustRegionExample) -> Sampled:
    n, depth = example.actions.shape
    return Sampled(OneState(example.gamma, depth), n)


def _model(example: TrustRegionExample) -> LocalModel:
    return _sampled(example).of_rollouts(jnp.asarray(example.theta), rollouts(example))


@in_double
def rollouts(example: TrustRegionExample) -> Rollouts:
    """Return the example's rollouts: the reward of a step is its action."""
    return _rewarded(jnp.asarray(example.actions))


def _rewarded(actions: Array) -> Rollouts:
    return Rollouts(jnp.zeros(actions.shape, jnp.int32), actions, actions)


@in_double
def gaussian(theta: ArrayLike, actions: Array) -> DiagGaussian:
    r"""Return :math:`N(\theta_1, \theta_2^2)` for each of the actions ``[...]``."""
    theta, shape = jnp.asarray(theta), (*actions.shape, 1)
    return DiagGaussian(jnp.broadcast_to(theta[0], shape), jnp.broadcast_to(jnp.log(theta[1]), shape))


class NaturalStepExercise(NamedTuple):
    """A natural step, from a Fisher matrix and a gradient that are given."""

    fisher: ArrayLike
    """``[2, 2]``."""
    gradient: ArrayLike
    """``[2]``."""
    theta: ArrayLike
    """The parameters before the step, ``[2]``."""
    epsilon: float
    """The bound on the quadratic divergence of the step."""


EXERCISE_12_2 = NaturalStepExercise(
    fisher=np.array([[0.341, 0.332], [0.332, 118.115]]),
    gradient=np.array([0.341, 0.332]),
    theta=np.array([0.0, 1.0]),
    epsilon=0.1,
)
"""What Exercise 12.2 computes with: it leads to the parameters [0.766, 1].

It says that these are the numbers of Example 12.1, but they are those of a draft of it, whose second action was -0.597
and whose second score was twice as large. Those of the example lead to [0.314, 1].
"""

# -- Exercise 12.3: a mean divergence over states ----------------------------------------------------------------------


class DivergenceExercise(NamedTuple):
    """Two policies as tables, and the states that were visited."""

    old: ArrayLike
    """Probabilities ``[S, A]``."""
    new: ArrayLike
    """Probabilities ``[S, A]``."""
    visited: ArrayLike
    """States ``[n]``."""


EXERCISE_12_3 = DivergenceExercise(
    old=np.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.6, 0.2]]),
    new=np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.5, 0.3]]),
    visited=np.array([0, 1, 0, 0, 1]),
)
"""The tables of Exercise 12.3: the mean is 0.285, as printed.

The book's line for the first state has log(0.3/0.3) where log(0.3/0.2) is meant (and computed).
"""


@in_double
def divergences(exercise: DivergenceExercise) -> Array:
    """Return KL(old || new) at each state, ``[S]``."""
    return table(exercise.old).kl(table(exercise.new))


@in_double
def mean_divergence(exercise: DivergenceExercise) -> Array:
    """Return the mean of KL(old || new) over the states that were visited."""
    return jnp.mean(divergences(exercise)[exercise.visited])


# -- Example 4.6.1 of the course notes: two actions ------------------------------------------------------------------------

BERNOULLI = TabularMDP.of(transitions=[[[1.0], [1.0]]], rewards=[[1.0, 100.0]], initial=[1.0], gamma=1.0, horizon=1)
r"""One decision between two actions, :math:`J = 100 \, \pi(1) + \pi(0)`.

With :math:`\pi(1) = \sigma(\theta)` the gradient is :math:`99 e^\theta / (1 + e^\theta)^2`, the Fisher matrix
:math:`e^\theta / (1 + e^\theta)^2`, and the natural gradient 99 everywhere.
"""


@in_double
def bernoulli(theta: Array) -> Categorical:
    r"""Return the policy :math:`\pi(1) = \sigma(\theta)` of one parameter ``[1]``, with logits ``[1, 2]``."""
    return Categorical(jnp.stack([jnp.zeros_like(theta[0]), theta[0]])[None])
