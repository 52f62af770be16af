"""A set of objects, seen by a network that treats all alike: jumar train ppo ENV --encoder own_encoder:SetEncoder."""

import jax
import jax.numpy as jnp


class SetEncoder:
    """Embeds each row of an observation ``[objects, numbers]``, and keeps the largest entries (Zaheer et al. 2017)."""

    width = 32

    def init(self, key):
        """Draw parameters: a matrix from the numbers of a row to its embedding."""
        return {"matrix": jax.random.normal(key, (3, self.width)) / jnp.sqrt(3.0), "bias": jnp.zeros(self.width)}

    def apply(self, parameters, observation):
        """Return the vector of one observation."""
        embedded = jax.nn.relu(observation.reshape(-1, 3) @ parameters["matrix"] + parameters["bias"])
        return jnp.max(embedded, axis=0)
