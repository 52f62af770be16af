r"""The temperature :math:`\alpha`: what entropy is worth beside rewards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.solvers.ascent import Optimiser
from jumar.solvers.problem import Parameters


class Entropies(NamedTuple):
    """What a temperature looks at, means over a batch."""

    log_prob: Array
    """Of log pi, a scalar."""
    allowed: Array | float = 0.0
    """Of log k - log n, where masks allow k of n Discrete actions: how much less the largest entropy is there."""


class Temperature(Protocol):
    """A part that says what entropy is worth."""

    @property
    def soft(self) -> bool:
        """Whether entropy counts at all."""
        ...

    def init(self) -> Parameters:
        """Return its parameters before any update."""
        ...

    def value(self, parameters: Parameters) -> Array:
        r"""Return :math:`\alpha`, a scalar of at least 0."""
        ...

    def follow(
        self, parameters: Parameters, state: Any, entropies: Entropies, optimiser: Optimiser, remaining: Array
    ) -> tuple[Parameters, Any, Array]:
        """Return its parameters after an update, the optimiser's state, and its loss."""
        ...


@dataclass(frozen=True)
class FixedTemperature:
    r"""The part that keeps :math:`\alpha` as it is; 0 where entropy is worth nothing."""

    alpha: float = 0.0

    @property
    def soft(self) -> bool:
        """Whether entropy counts at all."""
        return self.alpha > 0.0

    def init(self) -> Parameters:
        """Return no parameters."""
        return {}

    def value(self, parameters: Parameters) -> Array:
        """Return the constant."""
        return jnp.asarray(self.alpha, jnp.float32)

    def follow(
        self, parameters: Parameters, state: Any, entropies: Entropies, optimiser: Optimiser, remaining: Array
    ) -> tuple[Parameters, Any, Array]:
        """Return everything as it is."""
        return parameters, state, jnp.zeros((), jnp.float32)


@dataclass(frozen=True)
class LearntTemperature:
    r"""The part by which :math:`\alpha` is the multiplier of a constraint, :math:`H(\pi) \ge \bar H`.

    The dual problem's gradient in :math:`\alpha` is :math:`E[-\log \pi] - \bar H`. What is moved is :math:`\log \alpha`, down

    .. math::
        J(\log \alpha) = -\log \alpha \; (E[\log \pi] + \bar H).

    Where masks allow :math:`k(s)` of n Discrete actions, no policy has more than :math:`\log k(s)`, and a target above that
    would let :math:`\alpha` grow without end: :math:`\bar H` is less by a share of :math:`E[\log n - \log k]` there.

    Source: Haarnoja et al. 2018, *Soft Actor-Critic Algorithms and Applications*, section 5; the logarithm is that of their
    code, and of Stable-Baselines3's.
    """

    first: float
    target_entropy: float
    r""":math:`\bar H` in nats, of the density in the environment's units."""
    share: float = 0.0
    """The share of the largest entropy that the target is, where it is one."""

    soft = True

    def init(self) -> Parameters:
        """Return the first logarithm."""
        return {"log_alpha": jnp.asarray(math.log(self.first), jnp.float32)}

    def value(self, parameters: Parameters) -> Array:
        r"""Return :math:`\alpha`."""
        return jnp.exp(parameters["log_alpha"])

    def follow(
        self, parameters: Parameters, state: Any, entropies: Entropies, optimiser: Optimiser, remaining: Array
    ) -> tuple[Parameters, Any, Array]:
        """Return the logarithm after a step down its loss."""
        missing = jax.lax.stop_gradient(entropies.log_prob) + self.target_entropy + self.share * entropies.allowed
        loss = -parameters["log_alpha"] * missing
        parameters, state = optimiser.ascend(parameters, {"log_alpha": missing}, state, remaining)
        return parameters, state, loss


def parse_temperature(ent_coef: float | str, target_entropy: float, share: float = 0.0) -> Temperature:
    """Return the temperature that a setting names: ``auto``, ``auto:0.1`` or a number.

    The others are those of :class:`LearntTemperature`.

    Raises:
        UsageError: it is neither, or is out of range.
    """
    said = "write auto, auto:0.1 (the first value) or a number of at least 0"
    kind, colon, first = str(ent_coef).partition(":")
    if "_" in kind and kind.startswith("auto"):  # auto_0.1, as Stable-Baselines3 has it
        kind, colon, first = "auto", ":", kind.removeprefix("auto_")
    try:
        number = float(first if colon else 1.0) if kind == "auto" else float(ent_coef)
    except ValueError:
        raise UsageError(f"ent_coef={ent_coef} is no temperature; {said}.") from None
    if not math.isfinite(number) or number < 0.0 or (kind == "auto" and number == 0.0):
        raise UsageError(f"ent_coef={ent_coef} is out of range; {said}.")
    return LearntTemperature(number, target_entropy, share) if kind == "auto" else FixedTemperature(number)
