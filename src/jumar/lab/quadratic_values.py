r"""What a linear-Gaussian policy is worth in a linear-quadratic problem, and its gradients, in closed form.

Everything is computed in the coordinates :math:`x = (s, 1)`, in which an affine policy is a linear one with the gain
:math:`\tilde K = (K, k)`.

Source: Fazel, Ge, Kakade and Mesbahi 2018, *Global Convergence of Policy Gradient Methods for the Linear Quadratic Regulator*.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jumar.errors import UsageError
from jumar.lab.linear_quadratic import LinearPolicy, LinearQuadratic
from jumar.lab.precision import in_double
from jumar.lab.rollouts import discounts


class QuadraticValues(NamedTuple):
    r"""The coefficients of :math:`V(s) = -(s^T P s + 2 p^T s + c)`; with a horizon each has a leading axis ``[H + 1]``."""

    curvature: Array
    """P, ``[n, n]``."""
    slope: Array
    """p, ``[n]``."""
    constant: Array
    """c."""

    @in_double
    def at(self, states: Array) -> Array:
        """Return the values of states ``[..., n]``, or with a horizon of ``[..., H + 1, n]``."""
        square = jnp.einsum("...i,...ij,...j->...", states, self.curvature, states)
        return -(square + 2.0 * jnp.einsum("...i,...i->...", states, self.slope) + self.constant)


@in_double
def values(problem: LinearQuadratic, policy: LinearPolicy) -> QuadraticValues:
    r"""Return the values of the policy.

    In the coordinates :math:`x = (s, 1)` they are :math:`-x^T \tilde P x` with
    :math:`\tilde P = \tilde Q + \tilde K^T R \tilde K + \gamma \tilde M^T \tilde P' \tilde M`, :math:`\tilde M = \tilde A +
    \tilde B \tilde K`, and a constant for the noise, :math:`c = tr(R \Sigma) + \gamma (tr(P' (W + B \Sigma B^T)) + c')`.
    Without a horizon these are linear equations. Their solution is the worth of the policy where
    :math:`\sqrt\gamma \, |\lambda| < 1` for all eigenvalues of A + B K, which inside of ``jax.jit`` is not checked.

    Raises:
        UsageError: without a horizon, the policy's discounted cost is not finite.
    """
    form, constant = _forms(problem, policy)
    n = problem.n
    return QuadraticValues(form[..., :n, :n], form[..., :n, n], form[..., n, n] + constant)


@in_double
def performance(problem: LinearQuadratic, policy: LinearPolicy) -> Array:
    r"""Return :math:`J = E[V(s_0)] = E[\sum_t \gamma^t r_t]`, a scalar."""
    form, constant = _forms(problem, policy)
    if problem.horizon is not None:
        form, constant = form[0], constant[0]
    return -(jnp.sum(form * _first_moment(problem)) + constant)


@in_double
def discounted_moments(problem: LinearQuadratic, policy: LinearPolicy) -> Array:
    r"""Return :math:`\sum_t \gamma^t E[x_t x_t^T]` of :math:`x = (s, 1)`, ``[n + 1, n + 1]``; with a horizon its H terms.

    Its last entry is the sum of the discounts, the last column the discounted sum of the means.
    """
    closed, noise = _closed(problem, policy), _noise(problem, policy)
    start = _first_moment(problem)
    if problem.horizon is None:
        _check_finite(problem.gamma, closed)
        source = start + problem.gamma / (1.0 - problem.gamma) * noise
        return _lyapunov(problem.gamma, jnp.swapaxes(closed, -1, -2), source)

    def after(now: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        move, noise = step
        return move @ now @ move.T + noise, now

    lead = (problem.horizon, *closed.shape[-2:])
    _, moments = jax.lax.scan(after, start, (jnp.broadcast_to(closed, lead), jnp.broadcast_to(noise, lead)))
    return discounts(problem.gamma, problem.horizon)[:, None, None] * moments


@in_double
def policy_gradient(problem: LinearQuadratic, policy: LinearPolicy) -> LinearPolicy:
    r"""Return the gradient of J in K, k and :math:`\Sigma`, in the shapes of the policy.

    .. math::
        \nabla_{\tilde K} J = -2 \sum_t E_t \, \gamma^t E[x_t x_t^T], \quad
        E_t = (R + \gamma B^T P_{t+1} B) \tilde K + \gamma \tilde B^T \tilde P_{t+1} \tilde A, \qquad
        \nabla_\Sigma J = -\sum_t \gamma^t (R + \gamma B^T P_{t+1} B)

    Source: Fazel et al. 2018, lemma 1.
    """
    bend, error = _action_curvature(problem, policy)
    moments = discounted_moments(problem, policy)
    by_gain, by_covariance = -2.0 * error @ moments, -moments[..., -1:, -1:] * bend
    if problem.horizon is not None and not policy.changes:
        by_gain, by_covariance = jnp.sum(by_gain, 0), jnp.sum(by_covariance, 0)
    return LinearPolicy(by_gain[..., :-1], by_gain[..., -1], by_covariance)


@in_double
def natural_gradient(problem: LinearQuadratic, policy: LinearPolicy) -> LinearPolicy:
    r"""Return :math:`F^{-1} \nabla J` for K and k, with the Fisher matrix under the discounted visits; for Sigma it has zeros.

    The Fisher matrix is :math:`F = \sum_t \gamma^t E[x_t x_t^T] \otimes \Sigma^{-1}`. So the natural gradient in
    :math:`\tilde K` is :math:`\Sigma \, \nabla_{\tilde K} J \, (\sum_t \gamma^t E[x_t x_t^T])^{-1}`, which without a horizon is
    :math:`-2 \Sigma E`: it does not depend on which states are visited.

    Source: Fazel et al. 2018, section 3 (with :math:`\Sigma = I`).
    """
    gradient, moments = policy_gradient(problem, policy), discounted_moments(problem, policy)
    if problem.horizon is not None and not policy.changes:
        moments = jnp.sum(moments, 0)
    joint = jnp.concatenate([gradient.gain, gradient.offset[..., None]], -1)
    # x is redundant where the state never varies: the pseudo-inverse.
    natural = policy.covariance @ joint @ jnp.linalg.pinv(moments, hermitian=True)
    return LinearPolicy(natural[..., :-1], natural[..., -1], jnp.zeros_like(policy.covariance))


@in_double
def step_error(problem: LinearQuadratic, policy: LinearPolicy) -> Array:
    r"""Return :math:`E`, ``[m, n + 1]``, or with a horizon ``[H, m, n + 1]``: how far the policy is from acting best.

    .. math:: E = (R + \gamma B^T P' B) \tilde K + \gamma \tilde B^T \tilde P' \tilde A

    With :math:`d = a - \tilde K x` an action has the advantage :math:`-(d^T (R + \gamma B^T P' B) d + 2 d^T E x)`, but for a
    constant. So E is 0 for the best policy.

    Source: Fazel et al. 2018, lemma 1, where it is :math:`E_K`.
    """
    return _action_curvature(problem, policy)[1]


def _action_curvature(problem: LinearQuadratic, policy: LinearPolicy) -> tuple[Array, Array]:
    r"""Return :math:`R + \gamma B^T P' B` and E, with the values of the next step."""
    form, _ = _forms(problem, policy)
    later = form if problem.horizon is None else form[1:]
    control, dynamics = _lifted(problem)
    bend = jnp.asarray(problem.action_cost) + problem.gamma * control.T @ later @ control
    return bend, bend @ _joint_gain(policy) + problem.gamma * control.T @ later @ dynamics


# -- in the coordinates (s, 1) -----------------------------------------------------------------------------------------


def _lifted(problem: LinearQuadratic) -> tuple[Array, Array]:
    """Return B ``[n + 1, m]`` and A ``[n + 1, n + 1]``; the last entry of x stays 1."""
    control = jnp.pad(jnp.asarray(problem.control), ((0, 1), (0, 0)))
    dynamics = jnp.pad(jnp.asarray(problem.dynamics), ((0, 1), (0, 1))).at[-1, -1].set(1.0)
    return control, dynamics


def _joint_gain(policy: LinearPolicy) -> Array:
    return jnp.concatenate([policy.gain, policy.offset[..., None]], -1)


def _closed(problem: LinearQuadratic, policy: LinearPolicy) -> Array:
    control, dynamics = _lifted(problem)
    return dynamics + control @ _joint_gain(policy)


def _noise(problem: LinearQuadratic, policy: LinearPolicy) -> Array:
    """Return the covariance of what is added to x in a step."""
    control, _ = _lifted(problem)
    return jnp.pad(jnp.asarray(problem.noise), ((0, 1), (0, 1))) + control @ policy.covariance @ control.T


def _first_moment(problem: LinearQuadratic) -> Array:
    first = jnp.append(jnp.asarray(problem.mean), 1.0)
    return jnp.pad(jnp.asarray(problem.spread), ((0, 1), (0, 1))) + jnp.outer(first, first)


def _forms(problem: LinearQuadratic, policy: LinearPolicy) -> tuple[Array, Array]:
    """Return the quadratic forms of the values in x, and what the noise adds; with a horizon ``H + 1`` of them."""
    gain, closed, noise = _joint_gain(policy), _closed(problem, policy), _noise(problem, policy)
    cost = jnp.pad(jnp.asarray(problem.state_cost), ((0, 1), (0, 1)))
    cost = cost + jnp.swapaxes(gain, -1, -2) @ jnp.asarray(problem.action_cost) @ gain
    spent = jnp.sum(jnp.asarray(problem.action_cost) * policy.covariance, (-2, -1))
    if problem.horizon is None:
        _check_finite(problem.gamma, closed)
        form = _lyapunov(problem.gamma, closed, cost)
        return form, (spent + problem.gamma * jnp.sum(form * noise)) / (1.0 - problem.gamma)

    def before(later: tuple[Array, Array], step: tuple[Array, ...]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        (form, constant), (cost, closed, noise, spent) = later, step
        constant = spent + problem.gamma * (jnp.sum(form * noise) + constant)
        now = cost + problem.gamma * closed.T @ form @ closed, constant
        return now, now

    end = jnp.pad(jnp.asarray(problem.final_cost), ((0, 1), (0, 1))), jnp.zeros(())
    lead = (problem.horizon,)
    steps = tuple(
        jnp.broadcast_to(x, lead + x.shape[x.ndim - k :]) for x, k in ((cost, 2), (closed, 2), (noise, 2), (spent, 0))
    )
    _, (forms, constants) = jax.lax.scan(before, end, steps, reverse=True)
    return jnp.concatenate([forms, end[0][None]]), jnp.append(constants, 0.0)


def _lyapunov(gamma: float, move: Array, source: Array) -> Array:
    r"""Return X with :math:`X = S + \gamma M^T X M`, ``[d, d]``, by the linear equations of its entries."""
    size = move.shape[0]
    system = jnp.eye(size * size) - gamma * jnp.kron(move.T, move.T)
    return jnp.linalg.solve(system, source.reshape(-1)).reshape(size, size)


def _check_finite(gamma: float | Array, closed: Array) -> None:
    """Raise a ``UsageError`` if states grow faster than the discount shrinks their cost; nothing is checked under tracing."""
    if isinstance(closed, Tracer) or isinstance(gamma, Tracer):
        return
    growth = float(np.sqrt(gamma) * np.abs(np.linalg.eigvals(np.asarray(closed)[:-1, :-1])).max(initial=0.0))
    if not growth < 1.0:
        raise UsageError(
            "the policy's discounted cost is not finite: sqrt(gamma) times the largest eigenvalue of A + B K is "
            f"{growth:.3g}, and must be below 1."
        )
