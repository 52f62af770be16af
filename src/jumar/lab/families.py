"""Families of policies in a tabular process: functions of flat parameters, whose gradients and Fisher matrices are exact."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jumar.distributions import Categorical
from jumar.lab.tabular import TabularMDP
from jumar.normalise import RunningMoments
from jumar.policies import Parameters, Policy

Family = Callable[[Array], Categorical]
"""Flat parameters ``[d]`` -> the action distributions at all states, logits ``[S, A]``."""


def softmax(mdp: TabularMDP) -> Family:
    r"""Return the policies :math:`\pi(a|s) = e^{\theta_{s,a}} / \sum_{a'} e^{\theta_{s,a'}}`, with ``S A`` parameters.

    A constant added to the parameters of one state changes nothing: the Fisher matrix is singular, with S null directions.
    """
    return lambda flat: Categorical(flat.reshape(mdp.n_states, mdp.n_actions))


def linear_softmax(features: Array) -> Family:
    r"""Return the policies :math:`\pi(a|s) \propto e^{\theta^T \phi(s, a)}` of features ``[S, A, d]``."""
    return lambda flat: Categorical(features @ flat)


def network_policy(mdp: TabularMDP, policy: Policy, parameters: Parameters, moments: RunningMoments) -> Categorical:
    """Return the action distributions of a policy without memory at all states, an agent's say.

    Example:
        >>> actor = agent.actor()  # of an agent in a TabularEnvironment(mdp)
        >>> performance(mdp, network_policy(mdp, actor.policy, actor.parameters, actor.moments))
    """
    features = policy.encoder.encode(jnp.arange(mdp.n_states), moments)
    distribution, _ = policy.distribution(parameters, features, (), jnp.zeros(mdp.n_states, bool), None)
    assert isinstance(distribution, Categorical)
    return distribution
