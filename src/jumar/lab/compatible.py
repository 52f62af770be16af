r"""Natural actor-critic: a critic that is linear in the scores of the policy has the natural gradient as its weights.

The features :math:`\psi(s, a) = \nabla \log \pi(a|s)` are *compatible* with the policy. The least-squares fit of the
advantages,

.. math::
    w = \arg\min_w \sum_t \sum_s \rho_t(s) \sum_a \pi(a|s) \, (A_t(s, a) - w^T \psi(s, a))^2,

has the normal equations :math:`(\sum \rho \pi \psi \psi^T) w = \sum \rho \pi \psi A = \nabla J`. So

- :math:`w^T \psi` in the place of A gives the same policy gradient: the projection keeps it;
- :math:`w = F^{-1} g` where F and g have the same weights. The Fisher matrix per step has the normalised weights d, and its
  natural gradient is :math:`F^+ \nabla J = w \sum \rho`, :math:`w / (1 - \gamma)` without a horizon.

Where the scores are linearly dependent (a tabular softmax), w is the solution of least norm.

Sources: Sutton, McAllester, Singh and Mansour 2000, theorem 2; Kakade 2001, *A Natural Policy Gradient*, theorem 1; Peters
and Schaal 2008, *Natural Actor-Critic*.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.lab.arguments import ArrayLike
from jumar.lab.families import Family
from jumar.lab.gradients import solve
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, advantages, visitation
from jumar.solvers.fisher import scores, step_fisher


@in_double
def compatible_weights(mdp: TabularMDP, family: Family, flat: Array) -> Array:
    r"""Return w, ``[d]``, by least squares over all states and actions (and steps): the exact critic's weights.

    Source: Sutton, McAllester, Singh and Mansour 2000, theorem 2; Kakade 2001, theorem 1.
    """
    policy = family(flat)
    features = scores(lambda x: family(x).log_probs, flat)
    shares = jnp.sqrt(visitation(mdp, policy)[..., None] * policy.probs)
    rows = (shares[..., None] * features).reshape(-1, features.shape[-1])
    return jnp.linalg.lstsq(rows, (shares * advantages(mdp, policy)).reshape(-1))[0]


@in_double
def compatible_advantages(family: Family, flat: Array, weights: Array) -> Array:
    r"""Return :math:`w^T \psi(s, a)`, ``[S, A]``: the critic's advantages; their mean over the policy's actions is 0."""
    return scores(lambda x: family(x).log_probs, flat) @ weights


@in_double
def sampled_compatible_weights(scores: Array, signals: Array, weights: Array) -> Array:
    r"""Return the regression of signals on scores, ``[d]``, from trajectories.

    .. math::
        w = \Bigl(\sum_{n,t} v_t \psi_{n,t} \psi_{n,t}^T\Bigr)^+ \sum_{n,t} v_t \psi_{n,t} x_{n,t}

    It converges to :func:`compatible_weights` with N, for signals whose mean is the advantage, or that plus a function of the
    state: :math:`G_t - b(s_t)`.

    Args:
        scores: :math:`\psi`, ``[N, T, d]``.
        signals: x, ``[N, T]``.
        weights: v, broadcast to ``[N, T]``: :math:`\gamma^t`, as the exact weights have it.

    Raises:
        UsageError: all scores are 0.

    Source: Peters and Schaal 2008, the episodic natural actor-critic.
    """
    weights = jnp.broadcast_to(weights, signals.shape)
    fisher = step_fisher(scores, weights)
    return solve(fisher, jnp.einsum("ntd,nt->d", scores, weights * signals) / jnp.sum(weights))


@in_double
def lstd_q(
    scores: Array, features: Array, next_features: Array, rewards: Array, gamma: float, weights: ArrayLike | float = 1.0
) -> tuple[Array, Array]:
    r"""Return the compatible critic's w, ``[d]``, and its values' v, ``[k]``, by temporal differences of transitions.

    With :math:`\hat\phi = (\phi(s), \psi(s, a))` and :math:`\tilde\phi = (\phi(s'), 0)` it solves

    .. math::
        \sum_i u_i \hat\phi_i (\hat\phi_i - \gamma \tilde\phi_i)^T \begin{pmatrix} v \\ w \end{pmatrix}
        = \sum_i u_i \hat\phi_i r_i

    for the solution of least norm. No returns are needed. Where :math:`v^T \phi` can be V, an indicator of the state say, w
    is that of :func:`compatible_weights` in the limit of many transitions, weighted as there
    (:math:`\rho(s) \pi(a|s) P(s'|s, a)`); with these weights over all (s, a, s') it is that exactly. With other features of
    states it has their bias.

    Args:
        scores: :math:`\psi`, ``[n, d]``.
        features: :math:`\phi(s)`, ``[n, k]``.
        next_features: :math:`\phi(s')`, ``[n, k]``; zeros after a termination.
        rewards: r, ``[n]``.
        gamma: discount.
        weights: u, broadcast to ``[n]``.

    Raises:
        UsageError: the shapes do not fit.

    Source: Peters and Schaal 2008 (LSTD-Q, here with :math:`\lambda = 0`).
    """
    scores, features, next_features, rewards = (jnp.asarray(x) for x in (scores, features, next_features, rewards))
    n = rewards.shape[0]
    if rewards.ndim != 1 or {len(scores), len(features)} != {n} or features.shape != next_features.shape:
        raise UsageError(
            f"scores {scores.shape}, features {features.shape} and {next_features.shape} and rewards {rewards.shape} do not "
            "fit; they must be [n, d], [n, k], [n, k] and [n]."
        )
    hat = jnp.concatenate([features, scores], -1)
    tilde = jnp.concatenate([next_features, jnp.zeros_like(scores)], -1)
    weighted = jnp.broadcast_to(jnp.asarray(weights, hat.dtype), (n,))[:, None] * hat
    # The null directions of scores are cut at what rounding makes of a 0.
    cut = 10.0 * hat.shape[-1] * float(jnp.finfo(hat.dtype).eps)
    found = jnp.linalg.lstsq(weighted.T @ (hat - gamma * tilde), weighted.T @ rewards, rcond=cut)[0]
    return found[features.shape[-1] :], found[: features.shape[-1]]
