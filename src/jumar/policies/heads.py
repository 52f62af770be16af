"""Heads: the last part of a policy, from a torso's latent vector to the distribution that an action space asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.networks.layers import Linear, Parameters
from jumar.policies.distributions import (
    FORBIDDEN,
    Bernoulli,
    Categorical,
    Deterministic,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    Pushforward,
    SquashedGaussian,
    mask_logits,
)


class Head(Protocol):
    """The last part of a policy: from the torso's latent vector to an action distribution."""

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        ...

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Distribution:
        """Return the distribution of the actions at ``latent`` ``[..., width]``."""
        ...

    def noise(self, key: Array, n_envs: int) -> Array:
        """Draw what the actions of one step of ``n_envs`` environments are made from."""
        ...


@dataclass(frozen=True)
class LogitHead:
    """Base of the heads whose distribution has logits: they are linear in the latent vector."""

    linear: Linear

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        return {"logits": self.linear.init(key)}

    def logits(self, parameters: Parameters, latent: Array) -> Array:
        """Return the logits, before any mask."""
        return self.linear.apply(parameters["logits"], latent)


@dataclass(frozen=True)
class CategoricalHead(LogitHead):
    """One categorical, for a Discrete space."""

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Categorical:
        """Return the categorical; ``mask`` is ``[..., n]``."""
        return Categorical(mask_logits(self.logits(parameters, latent), mask))

    def noise(self, key: Array, n_envs: int) -> Array:
        """Draw Gumbel noise ``[N, n]``."""
        return Categorical.noise(key, (n_envs, self.linear.outputs))


@dataclass(frozen=True)
class LogLinearHead:
    r"""One categorical whose logits are linear in features of states and actions, for a Discrete space.

    .. math::
        \pi_\theta(a|s) \propto e^{\theta \cdot \phi(s, a)}, \qquad
        \nabla \log \pi_\theta(a|s) = \phi(s, a) - E_{b \sim \pi_\theta}[\phi(s, b)].

    The latent vector is :math:`\phi(s, \cdot)`, ``[..., n, d]`` (:class:`jumar.policies.features.FeatureTorso`). The
    first policy is the uniform one, :math:`\theta = 0`.

    Source: Sutton, McAllester, Singh and Mansour 2000, *Policy Gradient Methods for Reinforcement Learning with Function
    Approximation*, section 3.
    """

    n_actions: int
    size: int
    """The length d of the features."""

    def init(self, key: Array) -> Parameters:
        """Return weights of 0."""
        return {"theta": jnp.zeros((self.size,), jnp.float32)}

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Categorical:
        """Return the categorical; ``mask`` is ``[..., n]``."""
        return Categorical(mask_logits(latent @ parameters["theta"], mask))

    def noise(self, key: Array, n_envs: int) -> Array:
        """Draw Gumbel noise ``[N, n]``."""
        return Categorical.noise(key, (n_envs, self.n_actions))


@dataclass(frozen=True)
class MultiCategoricalHead(LogitHead):
    """Several independent categoricals, for a MultiDiscrete space."""

    choices: tuple[int, ...]

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> MultiCategorical:
        """Return the choices; ``mask`` is ``[..., sum(choices)]``."""
        logits = mask_logits(self.logits(parameters, latent), mask)
        ends = np.cumsum(self.choices)
        widest = max(self.choices)
        rows = [
            jnp.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, widest - part.shape[-1])], constant_values=FORBIDDEN)
            for part in jnp.split(logits, ends[:-1], axis=-1)
        ]
        return MultiCategorical(jnp.stack(rows, axis=-2))

    def noise(self, key: Array, n_envs: int) -> Array:
        """Draw Gumbel noise ``[N, k, n_max]``."""
        return MultiCategorical.noise(key, (n_envs, len(self.choices), max(self.choices)))


@dataclass(frozen=True)
class BernoulliHead(LogitHead):
    """Independent bits, for a MultiBinary space."""

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Bernoulli:
        """Return the bits; ``mask`` is ``[..., 2 n]``: for each bit whether 0 and whether 1 is allowed."""
        logits = self.logits(parameters, latent)
        if mask is not None:
            allowed = mask.reshape(*mask.shape[:-1], logits.shape[-1], 2)
            never, always = jnp.asarray(FORBIDDEN, logits.dtype), jnp.asarray(-FORBIDDEN, logits.dtype)
            logits = jnp.where(allowed[..., 1], logits, never)
            logits = jnp.where(allowed[..., 0], logits, always)
        return Bernoulli(logits)

    def noise(self, key: Array, n_envs: int) -> Array:
        """Draw uniform noise ``[N, n]``."""
        return Bernoulli.noise(key, (n_envs, self.linear.outputs))


class Deviation(Protocol):
    """A part that says what the log standard deviations of a Gaussian are."""

    def init(self, key: Array) -> Parameters:
        """Draw parameters, which join the head's own: ``{"log_std": ...}``, or none."""
        ...

    def log_std(self, parameters: Parameters, latent: Array) -> Array:
        """Return the log deviations, ``[n]`` where they are the same in every state, else ``[..., n]``."""
        ...


LOWEST_LOG_STD = -25.0
"""A free log deviation below this counts as this: 1e-11 is next to nothing for an action in single precision, and the
densities of much smaller deviations are beyond it."""


@dataclass(frozen=True)
class FreeDeviation:
    """Log deviations that are parameters themselves, the same in every state; they begin at ``log_std_init``."""

    size: int
    log_std_init: float

    def init(self, key: Array) -> Parameters:
        """Return the first log deviations."""
        return {"log_std": jnp.full((self.size,), self.log_std_init, jnp.float32)}

    def log_std(self, parameters: Parameters, latent: Array) -> Array:
        """Return the parameters, or :data:`LOWEST_LOG_STD` where they are below."""
        return jnp.maximum(parameters["log_std"], LOWEST_LOG_STD)


@dataclass(frozen=True)
class FixedDeviation:
    r"""Log deviations that stay what they are, without parameters: the policy :math:`N(\mu_\theta(s), \sigma^2 I)`."""

    size: int
    value: float
    r"""The :math:`\log \sigma`."""

    def init(self, key: Array) -> Parameters:
        """Return no parameters."""
        return {}

    def log_std(self, parameters: Parameters, latent: Array) -> Array:
        """Return the constant."""
        return jnp.full((self.size,), self.value, latent.dtype)


LOG_STD_REACH = 5.0
"""How far a state-dependent log deviation goes from the first one, on either side: a factor of 148 in the deviation."""


@dataclass(frozen=True)
class StateDeviation:
    r"""Log deviations that depend on the state, within bounds.

    .. math::
        \log \sigma(s) = l_0 + c \tanh(x / c), \qquad x = W^T z(s) + b,

    with the latent vector ``z``, the first log deviation :math:`l_0` and :math:`c` = :data:`LOG_STD_REACH`. Near the
    first one the slope is 1, so nothing is lost where learning begins; and since no two log deviations are further apart than
    :math:`2 c`, no ratio of variances is above :math:`e^{4 c}` (5e8), which single precision holds.

    Source: the squashing by tanh, from -5 on, is that of Yarats and Kostrikov 2020, *Soft Actor-Critic (SAC)
    implementation in PyTorch*; to centre it on the first deviation is our own.
    """

    linear: Linear
    log_std_init: float

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        return {"log_std": self.linear.init(key)}

    def log_std(self, parameters: Parameters, latent: Array) -> Array:
        """Return the log deviations at ``latent``."""
        raw = self.linear.apply(parameters["log_std"], latent)
        return self.log_std_init + LOG_STD_REACH * jnp.tanh(raw / LOG_STD_REACH)


LOG_STD_BOUNDS = (-20.0, 2.0)
"""Between these a :class:`ClampedDeviation` is kept."""


@dataclass(frozen=True)
class ClampedDeviation:
    r"""Log deviations that depend on the state, :math:`\log \sigma(s) = clip(l_0 + W^T z(s) + b, -20, 2)`.

    Source: Haarnoja et al. 2018, *Soft Actor-Critic*, in their code and in Stable-Baselines3's; :math:`l_0` is 0 there.
    """

    linear: Linear
    log_std_init: float

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        return {"log_std": self.linear.init(key)}

    def log_std(self, parameters: Parameters, latent: Array) -> Array:
        """Return the log deviations at ``latent``."""
        return jnp.clip(self.log_std_init + self.linear.apply(parameters["log_std"], latent), *LOG_STD_BOUNDS)


class Density(Protocol):
    """A part that says which density a mean and a log deviation make."""

    def __call__(self, mean: Array, log_std: Array, /) -> DiagGaussian | SquashedGaussian:
        """Return the distribution; both arrays are ``[..., n]``."""
        ...


@dataclass(frozen=True)
class Squashed:
    """The part whose distribution is a :class:`jumar.policies.distributions.SquashedGaussian`; without it, it is the
    normal itself.
    """

    half_range: tuple[float, ...]

    def __call__(self, mean: Array, log_std: Array, /) -> SquashedGaussian:
        """Return the squashed normal."""
        return SquashedGaussian(DiagGaussian(mean, log_std), self.half_range)


@dataclass(frozen=True)
class GaussianHead:
    """A mean linear in the latent vector, with the deviation of a part, for a Box."""

    linear: Linear
    deviation: Deviation
    density: Density = DiagGaussian

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        return {"mean": self.linear.init(key), **self.deviation.init(jax.random.fold_in(key, 1))}

    def distribution(
        self, parameters: Parameters, latent: Array, mask: Array | None
    ) -> DiagGaussian | SquashedGaussian:
        """Return the normal, squashed or not; a Box has no masks."""
        mean = self.linear.apply(parameters["mean"], latent)
        return self.density(mean, jnp.broadcast_to(self.deviation.log_std(parameters, latent), mean.shape))

    def noise(self, key: Array, n_envs: int) -> Array:
        """Draw normal noise ``[N, n]``."""
        return DiagGaussian.noise(key, (n_envs, self.linear.outputs))


@dataclass(frozen=True)
class DeterministicHead:
    """An action linear in the latent vector, for a Box; nothing is random."""

    linear: Linear

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        return {"mean": self.linear.init(key)}

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Deterministic:
        """Return the action; a Box has no masks."""
        return Deterministic(self.linear.apply(parameters["mean"], latent))

    def noise(self, key: Array, n_envs: int) -> Array:
        """Return zeros ``[N, n]``."""
        return Deterministic.noise(key, (n_envs, self.linear.outputs))


@dataclass(frozen=True)
class SamplerHead:
    """A network that makes actions of a latent vector and of normal noise as long as an action, for a Box.

    Source: Haarnoja, Tang, Abbeel and Levine 2017, *Reinforcement Learning with Deep Energy-Based Policies*, section 3.3.
    """

    linear: Linear

    @property
    def parts(self) -> dict[str, Linear]:
        """The affine maps: of the latent vector, of the noise, and of the hidden layer that joins them."""
        inputs, outputs, draw = self.linear.inputs, self.linear.outputs, self.linear.initialiser
        return {
            "hidden": Linear(inputs, inputs, 1.0, draw),
            "noise": Linear(outputs, inputs, 1.0, draw, bias=False),
            "output": Linear(inputs, outputs, 1.0, draw),
        }

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        keys = jax.random.split(key, len(self.parts))
        return {name: part.init(one) for (name, part), one in zip(self.parts.items(), keys, strict=True)}

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Pushforward:
        """Return what the network makes of noise at ``latent``; a Box has no masks."""
        hidden = self.parts["hidden"].apply(parameters["hidden"], latent)
        return Pushforward(hidden, {name: parameters[name] for name in ("noise", "output")})

    def noise(self, key: Array, n_envs: int) -> Array:
        """Draw normal noise ``[N, n]``."""
        return Pushforward.noise(key, (n_envs, self.linear.outputs))


@dataclass(frozen=True)
class StateDependentNoiseHead:
    r"""Generalized state-dependent exploration (gSDE), for a Box.

    The noise is a linear function of the latent vector, :math:`\epsilon(s) = z(s) W` with
    :math:`W_{ij} \sim N(0, \sigma_{ij}^2)` drawn once for many steps, so that actions are smooth in time. The
    distribution of one action is :math:`N(\mu(s), \sum_i z_i^2 \sigma_{ij}^2)`, before it is squashed, if it is. Where
    ``clip_mean`` is c, the mean is :math:`\operatorname{clip}(\mu(s), -c, c)`.

    Source: Raffin, Kober and Stulp 2021, *Smooth Exploration for Robotic Reinforcement Learning*.
    """

    linear: Linear
    log_std_init: float
    density: Density = DiagGaussian
    trains_latent: bool = False
    """Whether the latent vector is trained through the deviation, too."""
    clip_mean: float | None = None
    """The largest size of an entry of the mean."""

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        shape = (self.linear.inputs, self.linear.outputs)
        return {"mean": self.linear.init(key), "log_std": jnp.full(shape, self.log_std_init, jnp.float32)}

    def distribution(
        self, parameters: Parameters, latent: Array, mask: Array | None
    ) -> DiagGaussian | SquashedGaussian:
        """Return what one action has over the draws of ``W``: the normal, squashed or not."""
        mean = self._mean(parameters, latent)
        through = latent if self.trains_latent else jax.lax.stop_gradient(latent)
        variance = jnp.square(through) @ jnp.exp(2.0 * parameters["log_std"])
        return self.density(mean, 0.5 * jnp.log(variance + 1e-6))

    def noise(self, key: Array, n_envs: int) -> Array:
        """Return the key: ``W`` is large, and drawn only where it is renewed."""
        return key

    def draw(self, parameters: Parameters, key: Array, batch: tuple[int, ...]) -> Array:
        """Draw a matrix ``W`` for each batch entry, ``[*batch, width, n]``."""
        std = jnp.exp(parameters["log_std"])
        return std * jax.random.normal(key, (*batch, *std.shape), jnp.float32)

    def explore(self, parameters: Parameters, latent: Array, matrix: Array) -> Array:
        """Return the action with the noise of ``matrix`` in it."""
        return self._mean(parameters, latent) + jnp.einsum("...i,...ij->...j", latent, matrix)

    def _mean(self, parameters: Parameters, latent: Array) -> Array:
        mean = self.linear.apply(parameters["mean"], latent)
        return mean if self.clip_mean is None else jnp.clip(mean, -self.clip_mean, self.clip_mean)
