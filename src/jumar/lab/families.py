"""Families of policies in a tabular process: functions of flat parameters, whose gradients and Fisher matrices are exact."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.lab.arguments import ArrayLike
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.policies.moments import RunningMoments
from jumar.policies.policy import Parameters, Policy

Family = Callable[[Array], Categorical]
"""Flat parameters ``[d]`` -> the action distributions at all states, logits ``[S, A]``."""


def _family(policies: Family) -> Family:
    """Return the family in double precision; what is no array of parameters gets a sentence."""

    def checked(flat: Array) -> Categorical:
        if not isinstance(flat, ArrayLike):
            raise UsageError(
                f"theta is a {type(flat).__name__}; it must be an array of parameters, such as np.zeros(6)."
            )
        return policies(flat)

    return in_double(checked)


@in_double
def table(probs: ArrayLike) -> Categorical:
    """Return the policy with the probabilities ``[S, A]``, none of them 0."""
    return Categorical(jnp.log(jnp.asarray(probs)))


def softmax(mdp: TabularMDP) -> Family:
    r"""Return the policies :math:`\pi(a|s) = e^{\theta_{s,a}} / \sum_{a'} e^{\theta_{s,a'}}`, with ``S A`` parameters.

    A constant added to the parameters of one state changes nothing: the Fisher matrix is singular, with S null directions.
    """
    return _family(lambda flat: Categorical(flat.reshape(mdp.n_states, mdp.n_actions)))


def linear_softmax(features: Array | np.ndarray) -> Family:
    r"""Return the policies :math:`\pi(a|s) \propto e^{\theta^T \phi(s, a)}` of features ``[S, A, d]``."""
    return _family(lambda flat: Categorical(jnp.asarray(features, flat.dtype) @ flat))


def neural_softmax(features: Array | np.ndarray, width: int) -> Family:
    r"""Return the policies :math:`\pi(a|s) \propto e^{f_\theta(s, a)}` of features ``[S, A, d]``.

    :math:`f_\theta(s, a) = v^T \tanh(W \phi(s, a) + b)`, with ``width`` units in its hidden layer: ``W`` is ``[width, d]``,
    ``b`` and ``v`` are ``[width]``, and :math:`\theta` has them one after the other, ``width (d + 2)`` numbers.
    """
    size = width * features.shape[-1]

    def policies(flat: Array) -> Categorical:
        kernel, bias, out = flat[:size].reshape(width, -1), flat[size : size + width], flat[size + width :]
        return Categorical(jnp.tanh(jnp.asarray(features, flat.dtype) @ kernel.T + bias) @ out)

    return _family(policies)


def network_policy(mdp: TabularMDP, policy: Policy, parameters: Parameters, moments: RunningMoments) -> Categorical:
    """Return the action distributions of a policy without memory at all states, an agent's say.

    They are those that the agent acts by, in its own precision.

    Example:
        >>> actor = agent.actor()  # of an agent in a TabularEnvironment(mdp)
        >>> performance(mdp, network_policy(mdp, actor.policy, actor.parameters, actor.moments))
    """
    features = policy.encoder.encode(jnp.arange(mdp.n_states), moments)
    distribution, _ = policy.distribution(parameters, features, (), jnp.zeros(mdp.n_states, bool), None)
    assert isinstance(distribution, Categorical)
    return distribution
