"""Action distributions: immutable pytrees of their own parameters.

Each has ``sample``, ``mode``, ``log_prob``, ``entropy`` and ``kl`` (all summed over the parts of an action, natural
logarithm). A sample is a function of the parameters and of ``noise`` that does not depend on them (``outcome``), so
that the noise of many steps can be drawn at once, before the first of them. Each has also ``fisher_product``, the
product of a tangent with the Fisher information of the distribution's *own* parameters in closed form: the ``H`` in the
Fisher-vector product ``J' H J`` of a policy. Leading axes are free.

An action mask is applied to logits by :func:`mask_logits`; a masked action has probability exactly 0, and adds
exactly 0 to entropy, KL and Fisher products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Self = TypeVar("Self", bound="Distribution")

FORBIDDEN = -1e9
"""The logit of an action that is not allowed: finite, so that 0 * logit is 0 and no NaN can come of it."""

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class Outcomes(Protocol):
    """What everything that actions are drawn from can do; ``...`` stands for the batch axes."""

    @staticmethod
    def noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        """Draw what a sample is made from; ``shape`` ``[..., n]`` is that of the parameters."""
        ...

    def outcome(self, noise: Array) -> Array:
        """Return the sample that the noise makes, for each batch entry."""
        ...

    def sample(self, key: Array) -> Array:
        """Draw one action for each batch entry: the outcome of new noise."""
        ...

    def mode(self) -> Array:
        """Return the action that is taken where none is drawn: the most likely one, unless the class says otherwise."""
        ...


class Distribution(Outcomes, Protocol):
    """What every action distribution can do: it has a density, and divergences from others."""

    def log_prob(self, action: Array) -> Array:
        """Return log p(action), shape ``[...]``."""
        ...

    def entropy(self) -> Array:
        r"""Return :math:`-E[\log p]` in nats, shape ``[...]``."""
        ...

    def kl(self: Self, other: Self) -> Array:
        r"""Return :math:`KL(self \| other) = E_{self}[\log p_{self} - \log p_{other}] \ge 0`, shape ``[...]``."""
        ...

    def fisher_product(self: Self, tangent: Self) -> Self:
        r"""Return :math:`F v`, :math:`F = E[\nabla \log p \nabla \log p^T]` in the distribution's own parameters."""
        ...


class Deterministic(NamedTuple):
    """All weight on one ``value``, float ``[..., n]``: nothing is random, and there is no density."""

    value: Array

    @staticmethod
    def noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        """Return zeros: there is nothing to draw."""
        return jnp.zeros(shape, dtype)

    def outcome(self, noise: Array) -> Array:
        """Return the value."""
        return self.value

    def sample(self, key: Array) -> Array:
        """Return the value."""
        return self.value

    def mode(self) -> Array:
        """Return the value."""
        return self.value


class Pushforward(NamedTuple):
    r"""What a network makes of standard normal noise: actions can be drawn, and there is no density in closed form.

    .. math::
        a = W_o \, \mathrm{relu}(z + W_n \xi) + b_o, \qquad \xi \sim N(0, I).
    """

    hidden: Array
    """z: what the state adds before the activation, ``[..., width]``."""
    parameters: Any
    """``{"noise": {"kernel": ...}, "output": {"kernel": ..., "bias": ...}}``."""

    @staticmethod
    def noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        """Draw standard normal numbers."""
        return jax.random.normal(key, shape, dtype)

    def outcome(self, noise: Array) -> Array:
        """Return the action that the noise makes; there may be more leading axes of noise than there are of states."""
        output = self.parameters["output"]
        hidden = jax.nn.relu(self.hidden + noise @ self.parameters["noise"]["kernel"])
        return hidden @ output["kernel"] + output["bias"]

    def sample(self, key: Array) -> Array:
        """Draw actions."""
        shape = (*self.hidden.shape[:-1], self.parameters["noise"]["kernel"].shape[0])
        return self.outcome(self.noise(key, shape, self.hidden.dtype))

    def mode(self) -> Array:
        """Return the action that is made of the noise 0, as the most likely one is not known."""
        return self.outcome(jnp.zeros((self.parameters["noise"]["kernel"].shape[0],), self.hidden.dtype))


def mask_logits(logits: Array, mask: Array | None) -> Array:
    """Return the logits with those of forbidden actions (``mask`` False) replaced by a number that means never."""
    return logits if mask is None else jnp.where(mask, logits, jnp.asarray(FORBIDDEN, logits.dtype))


class Categorical(NamedTuple):
    """One of ``n`` actions with probabilities ``softmax(logits)``; logits ``[..., n]``, actions int32 ``[...]``."""

    logits: Array

    @property
    def log_probs(self) -> Array:
        """The normalised log-probabilities ``[..., n]``."""
        return jax.nn.log_softmax(self.logits)

    @property
    def probs(self) -> Array:
        """The probabilities ``[..., n]``."""
        return jax.nn.softmax(self.logits)

    @staticmethod
    def noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        """Draw standard Gumbel numbers."""
        return jax.random.gumbel(key, shape, dtype)

    def outcome(self, noise: Array) -> Array:
        r"""Return :math:`\arg\max_a x_a + g_a` (the Gumbel trick), ``x`` the logits and ``g`` the noise."""
        return jnp.argmax(self.logits + noise, axis=-1).astype(jnp.int32)

    def sample(self, key: Array) -> Array:
        """Draw actions."""
        return self.outcome(self.noise(key, self.logits.shape, self.logits.dtype))

    def mode(self) -> Array:
        """Return the most likely action."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        """Return the log-probability of the action."""
        # A one-hot product: its gradient is dense arithmetic, several times faster on a processor than a scatter.
        chosen = jax.nn.one_hot(action, self.logits.shape[-1], dtype=bool)
        return jnp.sum(jnp.where(chosen, self.log_probs, 0.0), axis=-1)

    def entropy(self) -> Array:
        r"""Return :math:`-\sum_a p_a \log p_a`."""
        return -jnp.sum(self.probs * self.log_probs, axis=-1)

    def kl(self, other: Categorical) -> Array:
        r"""Return :math:`\sum_a p_a (\log p_a - \log q_a)`."""
        return jnp.sum(self.probs * (self.log_probs - other.log_probs), axis=-1)

    def fisher_product(self, tangent: Categorical) -> Categorical:
        r"""Return :math:`(diag(p) - p p^T) v`."""
        p, v = self.probs, tangent.logits
        return Categorical(p * (v - jnp.sum(p * v, axis=-1, keepdims=True)))


class MultiCategorical(NamedTuple):
    """Several independent categorical choices; actions int32 ``[..., k]``.

    ``logits`` is ``[..., k, n_max]``: shorter choices are filled up with :data:`FORBIDDEN`.
    """

    logits: Array

    @property
    def parts(self) -> Categorical:
        """The choices as one batch of categoricals."""
        return Categorical(self.logits)

    noise = staticmethod(Categorical.noise)

    def outcome(self, noise: Array) -> Array:
        """Return the :meth:`Categorical.outcome` of each choice."""
        return self.parts.outcome(noise)

    def sample(self, key: Array) -> Array:
        """Draw each choice on its own."""
        return self.parts.sample(key)

    def mode(self) -> Array:
        """Return the most likely action of each choice."""
        return self.parts.mode()

    def log_prob(self, action: Array) -> Array:
        """Return the sum of the choices' log-probabilities."""
        return jnp.sum(self.parts.log_prob(action), axis=-1)

    def entropy(self) -> Array:
        """Return the sum of the choices' entropies."""
        return jnp.sum(self.parts.entropy(), axis=-1)

    def kl(self, other: MultiCategorical) -> Array:
        """Return the sum of the choices' divergences."""
        return jnp.sum(self.parts.kl(other.parts), axis=-1)

    def fisher_product(self, tangent: MultiCategorical) -> MultiCategorical:
        """Return the block-diagonal product, a :meth:`Categorical.fisher_product` for each choice."""
        return MultiCategorical(self.parts.fisher_product(tangent.parts).logits)


class Bernoulli(NamedTuple):
    """``n`` independent bits, each 1 with probability ``sigmoid(logit)``; logits ``[..., n]``, actions int32."""

    logits: Array

    @staticmethod
    def noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        """Draw uniform numbers in [0, 1)."""
        return jax.random.uniform(key, shape, dtype)

    def outcome(self, noise: Array) -> Array:
        r"""Return 1 where :math:`u < \sigma(x)`, ``x`` the logits and ``u`` the noise."""
        return (noise < jax.nn.sigmoid(self.logits)).astype(jnp.int32)

    def sample(self, key: Array) -> Array:
        """Draw each bit on its own."""
        return self.outcome(self.noise(key, self.logits.shape, self.logits.dtype))

    def mode(self) -> Array:
        """Return 1 where it is the likelier bit."""
        return (self.logits > 0.0).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        r"""Return :math:`\sum_i a_i \log \sigma(x_i) + (1 - a_i) \log \sigma(-x_i)`."""
        on = action.astype(self.logits.dtype)
        return jnp.sum(on * jax.nn.log_sigmoid(self.logits) + (1.0 - on) * jax.nn.log_sigmoid(-self.logits), axis=-1)

    def entropy(self) -> Array:
        """Return the sum of the bits' entropies."""
        p = jax.nn.sigmoid(self.logits)
        return -jnp.sum(p * jax.nn.log_sigmoid(self.logits) + (1.0 - p) * jax.nn.log_sigmoid(-self.logits), axis=-1)

    def kl(self, other: Bernoulli) -> Array:
        """Return the sum of the bits' divergences."""
        p = jax.nn.sigmoid(self.logits)
        on = jax.nn.log_sigmoid(self.logits) - jax.nn.log_sigmoid(other.logits)
        off = jax.nn.log_sigmoid(-self.logits) - jax.nn.log_sigmoid(-other.logits)
        return jnp.sum(p * on + (1.0 - p) * off, axis=-1)

    def fisher_product(self, tangent: Bernoulli) -> Bernoulli:
        r"""Return :math:`p (1 - p) v`."""
        p = jax.nn.sigmoid(self.logits)
        return Bernoulli(p * (1.0 - p) * tangent.logits)


class DiagGaussian(NamedTuple):
    """Independent normals with ``mean`` and ``log_std``, both ``[..., n]``; actions float ``[..., n]``, unbounded."""

    mean: Array
    log_std: Array

    @property
    def std(self) -> Array:
        """The standard deviations ``[..., n]``."""
        return jnp.exp(self.log_std)

    @staticmethod
    def noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        """Draw standard normal numbers."""
        return jax.random.normal(key, shape, dtype)

    def outcome(self, noise: Array) -> Array:
        r"""Return :math:`\mu + \sigma \epsilon`, :math:`\epsilon` the noise."""
        return self.mean + self.std * noise

    def sample(self, key: Array) -> Array:
        """Draw actions."""
        return self.outcome(self.noise(key, self.mean.shape, self.mean.dtype))

    def mode(self) -> Array:
        """Return the mean."""
        return self.mean

    def log_prob(self, action: Array) -> Array:
        r"""Return :math:`-\sum_i \frac{(a_i - \mu_i)^2}{2 \sigma_i^2} + \log \sigma_i + \frac12 \log 2 \pi`."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * jnp.square(z) + self.log_std + HALF_LOG_TWO_PI, axis=-1)

    def entropy(self) -> Array:
        r"""Return :math:`\sum_i \log \sigma_i + \frac12 (1 + \log 2 \pi)`."""
        return jnp.sum(self.log_std + 0.5 + HALF_LOG_TWO_PI, axis=-1) + 0.0 * jnp.sum(self.mean, axis=-1)

    def kl(self, other: DiagGaussian) -> Array:
        r"""Return :math:`\sum_i \log\frac{\sigma'_i}{\sigma_i} + \frac{\sigma_i^2 + (\mu_i - \mu'_i)^2}{2 \sigma'^2_i} - \frac12`."""  # noqa: E501
        log_ratio = other.log_std - self.log_std
        distance = jnp.square((self.mean - other.mean) * jnp.exp(-other.log_std))
        # expm1: near 0 the divergence is the small difference of terms that are not.
        return jnp.sum(log_ratio + 0.5 * (jnp.expm1(-2.0 * log_ratio) + distance), axis=-1)

    def fisher_product(self, tangent: DiagGaussian) -> DiagGaussian:
        r"""Return :math:`(v_\mu / \sigma^2, 2 v_{\log\sigma})`."""
        return DiagGaussian(tangent.mean * jnp.exp(-2.0 * self.log_std), 2.0 * tangent.log_std)


@partial(jax.tree_util.register_dataclass, data_fields=("normal",), meta_fields=("half_range",))
@dataclass(frozen=True)
class SquashedGaussian:
    r"""Independent normals, squashed by tanh into the bounds of a Box.

    .. math::
        u \sim N(\mu, \sigma^2), \qquad a = m + h \tanh u,

    with the middle :math:`m` and half of the range :math:`h` of each entry. Samples, the mode and the argument of
    :meth:`log_prob` are the values ``u`` before tanh, from which no rounding takes anything;
    :meth:`jumar.policies.actions.ActionCodec.to_environment` makes actions of them. Densities are those of the actions
    ``a``, in the units of the Box. Divergences do not change under an invertible map: they are those of the normals,
    and so is the Fisher matrix.

    Source: Haarnoja et al. 2018, *Soft Actor-Critic*, appendix C.
    """

    normal: DiagGaussian
    half_range: tuple[float, ...]
    """h of each entry, above 0; a constant, not a parameter."""

    noise = staticmethod(DiagGaussian.noise)

    def outcome(self, noise: Array) -> Array:
        """Return ``u``, the :meth:`DiagGaussian.outcome`."""
        return self.normal.outcome(noise)

    def sample(self, key: Array) -> Array:
        """Draw ``u``."""
        return self.normal.sample(key)

    def mode(self) -> Array:
        """Return the mean of ``u``: its action is the median in each entry, not the point of largest density.

        The largest density may be at a bound, where it says little of what the policy does.
        """
        return self.normal.mode()

    def log_prob(self, action: Array) -> Array:
        r"""Return :math:`\log p(a) = \log N(u; \mu, \sigma^2) - \sum_i \log |da_i / du_i|` at ``u``.

        The derivatives do not depend on the policy: in ratios of two policies they cancel.
        """
        return self.normal.log_prob(action) - jnp.sum(log_tanh_slope(action) + self._log_half_range, axis=-1)

    def entropy(self) -> Array:
        r"""Return :math:`H(u) + \sum_i E[\log |da_i / du_i|]`, the entropy of the actions, by :func:`mean_log_tanh_slope`."""
        slopes = mean_log_tanh_slope(self.normal.mean, self.normal.std)
        return self.normal.entropy() + jnp.sum(slopes + self._log_half_range, axis=-1)

    def kl(self, other: SquashedGaussian) -> Array:
        """Return the divergence of the normals, which is that of the actions: both are squashed alike."""
        return self.normal.kl(other.normal)

    def fisher_product(self, tangent: SquashedGaussian) -> SquashedGaussian:
        """Return the product of the normals."""
        return SquashedGaussian(self.normal.fisher_product(tangent.normal), self.half_range)

    @property
    def _log_half_range(self) -> Array:
        return jnp.asarray(np.log(self.half_range), self.normal.mean.dtype)


def log_tanh_slope(u: Array) -> Array:
    r"""Return :math:`\log \frac{d \tanh u}{d u} = \log(1 - \tanh^2 u) = 2 (\log 2 - u - \mathrm{softplus}(-2 u))`.

    The last form is finite for every ``u``; the one before is :math:`-\infty` in single precision from ``u = 9`` on.
    """
    return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(12)
_KERNEL = math.pi / math.sqrt(12.0)
r"""Deviation of the density :math:`\frac12 (1 - \tanh^2 u)`."""
_REACH = 1.2
"""Deviation of the normal that the quadrature takes out of what is left: with 12 nodes 1.2 leaves the smallest error."""


def mean_log_tanh_slope(mean: Array, std: Array) -> Array:
    r"""Return :math:`E[\log(1 - \tanh^2 u)]` of :math:`u \sim N(\mu, \sigma^2)`, elementwise, to within 5e-5.

    There is no closed form. With :math:`\log(1 - \tanh^2 u) = 2 \log 2 - 2 (\log \cosh u + \log 2)` and a normal ``w`` of
    variance :math:`c^2 = \pi^2 / 12`,

    .. math::
        \log \cosh u + \log 2 = E_w |u + w| + r(u).

    The mean of the first part is that of a folded normal of variance :math:`\sigma^2 + c^2`, in closed form. The
    remainder, below 0.03, vanishes quickly away from 0; its mean is taken by Gauss-Hermite quadrature. So that the nodes lie
    where it is not 0, also where :math:`\sigma` is large, they are those of the normal that is proportional to
    :math:`N(u; \mu, \sigma^2) N(u; 0, 1.2^2)`.
    """
    variance, reach = jnp.square(std), _REACH**2
    spread = variance + reach
    root = jnp.sqrt(variance + _KERNEL**2)
    folded = root * math.sqrt(2.0 / math.pi) * jnp.exp(-0.5 * jnp.square(mean / root))
    folded += mean * jax.scipy.special.erf(mean / (root * math.sqrt(2.0)))

    nodes, weights = (jnp.asarray(x, mean.dtype) for x in (_NODES, _WEIGHTS / np.sum(_WEIGHTS)))
    u = (mean * reach / spread)[..., None] + (std * _REACH / jnp.sqrt(spread))[..., None] * nodes
    # N(u; mean, std^2) over the density that the nodes are of: at most exp(nodes^2 / 2).
    tilt = 0.5 * jnp.square(u) / reach - (0.5 * jnp.square(mean) / spread)[..., None]
    remainder = jnp.sum(weights * jnp.exp(tilt) * _remainder(u), axis=-1) * _REACH / jnp.sqrt(spread)
    return 2.0 * (math.log(2.0) - folded - remainder)


def _remainder(u: Array) -> Array:
    r"""Return :math:`\log \cosh u + \log 2 - E_w |u + w|`, in a form without differences of large numbers."""
    size = jnp.abs(u)
    near = size * jax.scipy.special.erfc(size / (_KERNEL * math.sqrt(2.0)))
    bump = _KERNEL * math.sqrt(2.0 / math.pi) * jnp.exp(-0.5 * jnp.square(u / _KERNEL))
    return jnp.log1p(jnp.exp(-2.0 * size)) + near - bump
