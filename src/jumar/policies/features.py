r"""Features of one's own: policies that are linear in a function that the user writes.

For Discrete actions :math:`\pi_\theta(a|s) \propto e^{\theta \cdot \phi(s, a)}`, for a Box the mean
:math:`\mu_\theta(s) = \theta^T \phi(s)`. The function is ``features(vector, action)`` or ``features(vector)``: it takes the
encoded observation of one state, ``[k]`` float32 (:class:`jumar.policies.observations.Encoder`), and, for Discrete actions, the
index of one action, an int32 scalar; it returns a vector ``[d]``. It is mapped over rows and actions, so it must be made of
JAX's operations, without branches of Python that depend on values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.networks.layers import Parameters

Features = Callable[..., Any]
"""``(vector, action)`` or ``(vector,)`` to a vector ``[d]``; see the module's text."""


def name_of(features: Features) -> str:
    """Return what to call the function in files and messages."""
    return str(getattr(features, "__qualname__", type(features).__name__))


@dataclass(frozen=True)
class FeatureTorso:
    r"""The part that stands in the place of a policy's hidden layers: :math:`\phi`, which has no parameters.

    Its latent vector is :math:`\phi(s)`, ``[..., d]``, or, where there are actions, :math:`\phi(s, \cdot)`, ``[..., n, d]``.
    """

    features: Features
    n_actions: int | None
    """How many actions there are; ``None`` where the features are those of states alone."""
    outputs: int
    """The length d of the features."""

    core = None

    @classmethod
    def of(cls, features: Features, inputs: int, n_actions: int | None) -> FeatureTorso:
        """Return the torso of a function, which is traced once to see what it returns.

        Args:
            features: the function.
            inputs: the length k of the encoded observation.
            n_actions: how many actions there are, ``None`` if the function takes the observation alone.

        Raises:
            UsageError: it is no function, fails, or returns something else than one vector of numbers.
        """
        if not callable(features):
            raise UsageError(f"features={features!r} is not a function of an observation.")
        vector = jax.ShapeDtypeStruct((inputs,), jnp.float32)
        action = () if n_actions is None else (jax.ShapeDtypeStruct((), jnp.int32),)
        given = f"a vector of {inputs} numbers" + (" and the index of an action" if action else "")
        try:
            found = jax.eval_shape(lambda *x: jnp.asarray(features(*x)), vector, *action)
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise UsageError(
                f"features {name_of(features)} fails on {given}: {type(error).__name__}: {first}"
            ) from error
        if len(found.shape) != 1 or found.shape[0] < 1 or found.dtype.kind not in "fiub":
            raise UsageError(
                f"features {name_of(features)} returns an array of shape {list(found.shape)} and type {found.dtype} for "
                f"{given}; it must return one vector of numbers."
            )
        return cls(features, n_actions, found.shape[0])

    def init(self, key: Array) -> Parameters:
        """Return no parameters."""
        return {}

    def initial_carry(self, batch: tuple[int, ...]) -> tuple[()]:
        """Return nothing to remember."""
        return ()

    def apply(
        self, parameters: Parameters, features: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Any]:
        """Return the features of encoded observations ``[..., k]``, and the carry as it is."""
        vectors = features["vector"]
        each = self.features
        if self.n_actions is not None:
            actions = jnp.arange(self.n_actions, dtype=jnp.int32)
            each = lambda vector: jax.vmap(self.features, (None, 0))(vector, actions)  # noqa: E731
        latent = jax.vmap(each)(vectors.reshape(-1, vectors.shape[-1])).astype(vectors.dtype)
        return latent.reshape(*vectors.shape[:-1], *latent.shape[1:]), carry

    def unroll(
        self, parameters: Parameters, features: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Any]:
        """Return the features of sequences ``[R, T, k]``; there is no memory."""
        return self.apply(parameters, features, carry, episode_start)
