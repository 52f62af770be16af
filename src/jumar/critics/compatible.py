r"""Critics that are compatible with a deterministic policy: they are linear in the derivatives of its actions.

.. math::
    Q_{w,v}(s, a) = V_v(s) + (a - \mu_\theta(s))^T \nabla_\theta \mu_\theta(s)^T w

Where the policy is, their slope in the action is :math:`\nabla_\theta \mu_\theta(s)^T w`. If w makes the mean squared error of
that slope smallest, a policy that climbs them has the gradient that it has with the true action values.

Source: Silver et al. 2014, *Deterministic Policy Gradient Algorithms*, section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.critics.encodings import Number
from jumar.critics.ensemble import ReadOff
from jumar.networks.layers import Linear, Parameters, Torso
from jumar.policies.policy import Policy


@dataclass(frozen=True)
class Compatible(ReadOff):
    """One critic that is compatible with a policy, whose parameters it finds among its statistics.

    ``weights``, in the structure of the policy's parameters, are w and begin at 0; ``torso`` and ``value`` make V.
    """

    policy: Policy
    """A deterministic one for a Box."""
    torso: Torso
    """Its outputs are what V is linear in."""

    n = 1
    encoding = Number()

    @property
    def _value(self) -> Linear:
        return Linear(self.torso.outputs, 1, 1.0, self.torso.initialiser)

    def init(self, key: Array) -> Parameters:
        """Draw the parameters of V; w is 0."""
        first, second, third = jax.random.split(key, 3)
        weights = jax.tree.map(jnp.zeros_like, jax.eval_shape(self.policy.init, third))
        return {"torso": self.torso.init(first), "value": self._value.init(second), "weights": weights}

    def initial_statistics(self, policy: Parameters) -> Parameters:
        """Return the policy's parameters."""
        return jax.tree.map(jnp.copy, policy)

    def with_policy(self, statistics: Parameters, policy: Parameters) -> Parameters:
        """Return the policy's new parameters."""
        return jax.tree.map(jnp.copy, policy)

    def outputs(
        self, parameters: Parameters, statistics: Any, features: Parameters, actions: Array, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return Q, ``[1, ..., 1]``, and the policy's parameters."""
        latent, _ = self.torso.apply(parameters["torso"], features, (), jnp.zeros((), bool))
        value = self._value.apply(parameters["value"], latent)[..., 0]

        def acted(policy: Parameters) -> Array:
            return self.policy.actions.to_unit(self.policy.at(policy, features).mode(), jnp)

        mode, slope = jax.jvp(acted, (statistics,), (parameters["weights"],))
        return (value + jnp.sum((actions - mode) * slope, axis=-1))[None, ..., None], statistics

    def outputs_of_all(
        self, parameters: Parameters, statistics: Any, features: Parameters, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Refuse: there are no Discrete actions."""
        raise NotImplementedError("a compatible critic judges actions of a Box")
