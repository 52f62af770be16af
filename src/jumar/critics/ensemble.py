r"""Ensembles of action-value functions :math:`Q_k(s, a)`, which take actions as an input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.networks.layers import ACTIVATIONS, Initialiser, Linear, Parameters, Torso, orthogonal


class ActionValues(Protocol):
    """What an off-policy update needs of its critics."""

    @property
    def n(self) -> int:
        """How many there are."""
        ...

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        ...

    def initial_statistics(self) -> Any:
        """Return the state beside the parameters that no gradient moves (running means, say); ``()`` without any."""
        ...

    def apply(
        self, parameters: Parameters, statistics: Any, features: Parameters, actions: Array, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return Q of all critics, ``[n, ...]``, and the statistics after it.

        Args:
            parameters: those of :meth:`init`.
            statistics: those of :meth:`initial_statistics`, or what a call returned.
            features: encoded observations, leading axes ``[...]``.
            actions: ``[..., d]``, in units of half of their range, in which the bounds are -1 and 1.
            key: for critics with randomness of their own.
            training: whether the critics are being fitted to these rows.
        """
        ...


@dataclass(frozen=True)
class Ensemble:
    r"""``n`` networks over the joined vector of an observation and an action, without state or randomness.

    Images go through one convolutional network for all of them. The first layers lie side by side, in one product of
    ``[inputs, n * width]``: for two critics on a processor that is a sixth faster than two products, while the later layers
    are faster apart.
    """

    torso: Torso
    """Joins the vector and the images; it has no layers after them."""
    action_size: int
    sizes: tuple[int, ...]
    activation: str
    n: int
    initialiser: Initialiser = orthogonal

    @property
    def inputs(self) -> int:
        """The length of the joined vector."""
        return self.torso.joined + self.action_size

    def _layers(self) -> tuple[Linear, ...]:
        """Return the affine maps of one critic in order, the last of which has one output."""
        gain = math.sqrt(2.0) if self.initialiser is orthogonal else 1.0
        widths = (self.inputs, *self.sizes, 1)
        gains = [gain] * len(self.sizes) + [1.0]
        return tuple(Linear(a, b, g, self.initialiser) for a, b, g in zip(widths, widths[1:], gains, strict=False))

    def init(self, key: Array) -> Parameters:
        """Draw parameters; each critic's own are drawn apart.

        ``first`` has the first layers side by side, ``critic_k`` the others of critic ``k``.
        """
        first, *others = self._layers()
        torso_key, key = jax.random.split(key)
        parameters: Parameters = {"torso": self.torso.init(torso_key)}
        beginnings = []
        for k, one in enumerate(jax.random.split(key, self.n)):
            keys = jax.random.split(one, 1 + len(others))
            beginnings.append(first.init(keys[0]))
            parameters[f"critic_{k}"] = {f"layer_{i + 1}": layer.init(keys[i + 1]) for i, layer in enumerate(others)}
        return {**parameters, "first": jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), *beginnings)}

    def initial_statistics(self) -> tuple[()]:
        """Return no state."""
        return ()

    def apply(
        self, parameters: Parameters, statistics: Any, features: Parameters, actions: Array, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return Q of all critics, ``[n, ...]``; neither ``key`` nor ``training`` matters."""
        joined, _ = self.torso.apply(parameters["torso"], features, (), jnp.zeros((), bool))
        inputs = jnp.concatenate([joined, actions], axis=-1)
        first, *others = self._layers()
        activation = ACTIVATIONS[self.activation]
        outputs = inputs @ parameters["first"]["kernel"] + parameters["first"]["bias"]
        values = []
        for k in range(self.n):
            x = outputs[..., k * first.outputs : (k + 1) * first.outputs]
            for i, layer in enumerate(others):
                x = layer.apply(parameters[f"critic_{k}"][f"layer_{i + 1}"], activation(x))
            values.append(x[..., 0])
        return jnp.stack(values), statistics


class Reduction(Protocol):
    """A part that makes one value of those of all critics."""

    def __call__(self, values: Array, key: Array) -> Array:
        """Return ``[...]`` of ``[n, ...]``."""
        ...


@dataclass(frozen=True)
class First:
    """The part that takes the first critic's value."""

    def __call__(self, values: Array, key: Array) -> Array:
        """Return the value of critic 0."""
        return values[0]


@dataclass(frozen=True)
class Mean:
    """The part that takes the mean of all."""

    def __call__(self, values: Array, key: Array) -> Array:
        """Return the mean."""
        return jnp.mean(values, axis=0)


@dataclass(frozen=True)
class Least:
    r"""The part that takes the least value, :math:`\min_{k \in M} Q_k`, of all critics or of a random subset of them.

    Sources: Fujimoto, van Hoof and Meger 2018, *Addressing Function Approximation Error in Actor-Critic Methods*; the subset is
    that of Chen, Wang, Zhou and Ross 2021, *Randomized Ensembled Double Q-Learning*.
    """

    subset: int | None = None
    """The size of M, drawn anew for each batch; ``None``: all critics."""

    def __call__(self, values: Array, key: Array) -> Array:
        """Return the least value."""
        n = values.shape[0]
        if self.subset is None or self.subset >= n:
            return jnp.min(values, axis=0)
        chosen = jax.random.permutation(key, n)[: self.subset]
        return jnp.min(values[chosen], axis=0)
