"""Policies: ``(parameters, features, carry, episode_start, mask) -> (distribution, carry)``.

A policy is a frozen description; its parameters are a pytree beside it. It is put together from an encoder (whose
moments are the policy's observation normaliser), a torso and a head that makes the distribution of the action space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.actions import ActionCodec
from jumar.distributions import (
    FORBIDDEN,
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    mask_logits,
)
from jumar.errors import UsageError
from jumar.networks import Initialiser, Linear, Parameters, Torso, orthogonal, uniform_fan_in
from jumar.normalise import RunningMoments
from jumar.observations import Encoder
from jumar.spaces import describe_space
from jumar.trajectory import Batch


class Head(Protocol):
    """The last part of a policy: from the torso's latent vector to an action distribution."""

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        ...

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Distribution:
        """Return the distribution of the actions at ``latent`` ``[..., width]``."""
        ...


@dataclass(frozen=True)
class CategoricalHead:
    """Logits linear in the latent vector, for a Discrete space."""

    linear: Linear

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        return {"logits": self.linear.init(key)}

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Categorical:
        """Return the categorical; ``mask`` is ``[..., n]``."""
        return Categorical(mask_logits(self.linear.apply(parameters["logits"], latent), mask))


@dataclass(frozen=True)
class MultiCategoricalHead:
    """Logits of several choices linear in the latent vector, for a MultiDiscrete space."""

    linear: Linear
    choices: tuple[int, ...]

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        return {"logits": self.linear.init(key)}

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> MultiCategorical:
        """Return the choices; ``mask`` is ``[..., sum(choices)]``."""
        logits = mask_logits(self.linear.apply(parameters["logits"], latent), mask)
        ends = np.cumsum(self.choices)
        widest = max(self.choices)
        rows = [
            jnp.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, widest - part.shape[-1])], constant_values=FORBIDDEN)
            for part in jnp.split(logits, ends[:-1], axis=-1)
        ]
        return MultiCategorical(jnp.stack(rows, axis=-2))


@dataclass(frozen=True)
class BernoulliHead:
    """Logits of bits linear in the latent vector, for a MultiBinary space."""

    linear: Linear

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        return {"logits": self.linear.init(key)}

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> Bernoulli:
        """Return the bits; ``mask`` is ``[..., 2 n]``: for each bit whether 0 and whether 1 is allowed."""
        logits = self.linear.apply(parameters["logits"], latent)
        if mask is not None:
            allowed = mask.reshape(*mask.shape[:-1], logits.shape[-1], 2)
            never, always = jnp.asarray(FORBIDDEN, logits.dtype), jnp.asarray(-FORBIDDEN, logits.dtype)
            logits = jnp.where(allowed[..., 1], logits, never)
            logits = jnp.where(allowed[..., 0], logits, always)
        return Bernoulli(logits)


@dataclass(frozen=True)
class GaussianHead:
    """A mean linear in the latent vector and a free log deviation that is the same in every state, for a Box."""

    linear: Linear
    log_std_init: float

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        log_std = jnp.full((self.linear.outputs,), self.log_std_init, jnp.float32)
        return {"mean": self.linear.init(key), "log_std": log_std}

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> DiagGaussian:
        """Return the normal; a Box has no masks."""
        mean = self.linear.apply(parameters["mean"], latent)
        return DiagGaussian(mean, jnp.broadcast_to(parameters["log_std"], mean.shape))


@dataclass(frozen=True)
class StateDependentNoiseHead:
    r"""Generalized state-dependent exploration (gSDE), for a Box.

    The noise is a linear function of the latent vector, :math:`\epsilon(s) = z(s) W` with
    :math:`W_{ij} \sim N(0, \sigma_{ij}^2)` drawn once for many steps, so that actions are smooth in time. The
    distribution of one action is :math:`N(\mu(s), \sum_i z_i^2 \sigma_{ij}^2)`. The latent vector is not trained
    through the noise.

    Source: Raffin, Kober and Stulp 2021, *Smooth Exploration for Robotic Reinforcement Learning*.
    """

    linear: Linear
    log_std_init: float

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        shape = (self.linear.inputs, self.linear.outputs)
        return {"mean": self.linear.init(key), "log_std": jnp.full(shape, self.log_std_init, jnp.float32)}

    def distribution(self, parameters: Parameters, latent: Array, mask: Array | None) -> DiagGaussian:
        """Return the normal that one action has over the draws of ``W``."""
        mean = self.linear.apply(parameters["mean"], latent)
        variance = jnp.square(jax.lax.stop_gradient(latent)) @ jnp.exp(2.0 * parameters["log_std"])
        return DiagGaussian(mean, 0.5 * jnp.log(variance + 1e-6))

    def draw(self, parameters: Parameters, key: Array, batch: tuple[int, ...]) -> Array:
        """Draw a matrix ``W`` for each batch entry, ``[*batch, width, n]``."""
        std = jnp.exp(parameters["log_std"])
        return std * jax.random.normal(key, (*batch, *std.shape), jnp.float32)

    def explore(self, parameters: Parameters, latent: Array, matrix: Array) -> Array:
        """Return the action with the noise of ``matrix`` in it."""
        mean = self.linear.apply(parameters["mean"], latent)
        return mean + jnp.einsum("...i,...ij->...j", latent, matrix)


class Exploration(NamedTuple):
    """The memory of gSDE between steps."""

    matrix: Array
    """The ``W`` of each environment, ``[N, width, n]``."""
    age: Array
    """Steps since it was drawn, int32 scalar."""


class Carry(NamedTuple):
    """What a policy remembers from one step to the next; both parts are ``()`` where there is nothing."""

    core: Any
    exploration: Any


@dataclass(frozen=True)
class PolicySettings:
    """What a policy is made of, as data."""

    net_arch: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    ortho_init: bool = True
    log_std_init: float = 0.0
    use_sde: bool = False
    sde_sample_freq: int = -1
    recurrent: str | None = None
    recurrent_size: int = 256
    normalize_observations: bool = False
    clip_observations: float = 10.0

    @property
    def initialiser(self) -> Initialiser:
        """How matrices are drawn."""
        return orthogonal if self.ortho_init else uniform_fan_in


@dataclass(frozen=True)
class Policy:
    """A stochastic policy; see the module's text."""

    encoder: Encoder
    torso: Torso
    head: Head
    actions: ActionCodec
    sde_sample_freq: int = -1

    def init(self, key: Array) -> Parameters:
        """Draw parameters: ``{"torso": ..., "head": ...}``."""
        first, second = jax.random.split(key)
        return {"torso": self.torso.init(first), "head": self.head.init(second)}

    @property
    def recurrent(self) -> bool:
        """Whether the policy has a memory that is trained through."""
        return self.torso.core is not None

    def initial_carry(self, n_envs: int) -> Carry:
        """Return the carry before any step of ``n_envs`` environments."""
        exploration: Any = ()
        if isinstance(self.head, StateDependentNoiseHead):
            shape = (n_envs, self.head.linear.inputs, self.head.linear.outputs)
            exploration = Exploration(jnp.zeros(shape, jnp.float32), jnp.zeros((), jnp.int32))
        return Carry(self.torso.initial_carry((n_envs,)), exploration)

    def begin_rollout(self, carry: Carry) -> Carry:
        """Return the carry with which a rollout begins: gSDE draws new noise at its first step."""
        if isinstance(carry.exploration, Exploration):
            return carry._replace(exploration=carry.exploration._replace(age=jnp.zeros((), jnp.int32)))
        return carry

    def distribution(
        self, parameters: Parameters, features: Parameters, core: Any, episode_start: Array, mask: Array | None
    ) -> tuple[Distribution, Any]:
        """Return the distribution at features ``[..., ]`` and the recurrent core's new carry."""
        latent, core = self.torso.apply(parameters["torso"], features, core, episode_start)
        return self.head.distribution(parameters["head"], latent, mask), core

    def act(
        self,
        parameters: Parameters,
        moments: RunningMoments,
        observation: Any,
        carry: Carry,
        episode_start: Array,
        mask: Array | None,
        key: Array,
    ) -> tuple[Array, Carry]:
        """Draw the actions of ``N`` environments; the observation normaliser is left as it is."""
        features = self.encoder.encode(observation, moments)
        mask = self.encoder.mask(observation, mask)
        latent, core = self.torso.apply(parameters["torso"], features, carry.core, episode_start)
        if not isinstance(self.head, StateDependentNoiseHead):
            return self.head.distribution(parameters["head"], latent, mask).sample(key), Carry(core, ())
        exploration = self._refresh(parameters["head"], carry.exploration, key)
        action = self.head.explore(parameters["head"], latent, exploration.matrix)
        return action, Carry(core, exploration._replace(age=exploration.age + 1))

    def act_greedily(
        self,
        parameters: Parameters,
        moments: RunningMoments,
        observation: Any,
        carry: Carry,
        episode_start: Array,
        mask: Array | None,
    ) -> tuple[Array, Carry]:
        """Return the most likely actions of ``N`` environments."""
        features = self.encoder.encode(observation, moments)
        mask = self.encoder.mask(observation, mask)
        distribution, core = self.distribution(parameters, features, carry.core, episode_start, mask)
        return distribution.mode(), carry._replace(core=core)

    def evaluate(self, parameters: Parameters, batch: Batch) -> Distribution:
        """Return the distributions at all rows of a batch (whole sequences for a recurrent policy)."""
        carry = batch.carry.core if self.recurrent else ()
        latent, _ = self.torso.unroll(parameters["torso"], batch.features, carry, batch.episode_start)
        return self.head.distribution(parameters["head"], latent, batch.action_masks)

    def _refresh(self, parameters: Parameters, exploration: Exploration, key: Array) -> Exploration:
        head = self.head
        assert isinstance(head, StateDependentNoiseHead)
        due = exploration.age == 0
        if self.sde_sample_freq > 0:
            due = due | (exploration.age % self.sde_sample_freq == 0)
        batch = exploration.matrix.shape[:-2]
        matrix = jax.lax.cond(due, lambda: head.draw(parameters, key, batch), lambda: exploration.matrix)
        return exploration._replace(matrix=matrix)


@dataclass(frozen=True)
class Critic:
    """A state-value function with a torso of its own."""

    torso: Torso
    linear: Linear

    def init(self, key: Array) -> Parameters:
        """Draw parameters: ``{"torso": ..., "head": ...}``."""
        first, second = jax.random.split(key)
        return {"torso": self.torso.init(first), "head": self.linear.init(second)}

    @property
    def recurrent(self) -> bool:
        """Whether the critic has a memory."""
        return self.torso.core is not None

    def initial_carry(self, n_envs: int) -> Any:
        """Return the carry before any step."""
        return self.torso.initial_carry((n_envs,))

    def evaluate(self, parameters: Parameters, batch: Batch) -> Array:
        """Return V at all rows of a batch."""
        carry = batch.critic_carry if self.recurrent else ()
        latent, _ = self.torso.unroll(parameters["torso"], batch.features, carry, batch.episode_start)
        return self.linear.apply(parameters["head"], latent)[..., 0]

    def values(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return V of observations and of true successors of sequences ``[N, T, ...]``, and the carry after them.

        A recurrent critic sees each successor with the memory of its own episode.
        """
        latent, carries = self.torso.unroll(parameters["torso"], features, carry, episode_start)
        never = jnp.zeros_like(episode_start)
        next_latent, _ = self.torso.apply(parameters["torso"], successors, carries, never)
        last = jax.tree.map(lambda x: x[:, -1], carries)
        values, next_values = (self.linear.apply(parameters["head"], x)[..., 0] for x in (latent, next_latent))
        return values, next_values, last


def make_policy(observation_space: gym.Space[Any], action_space: gym.Space[Any], settings: PolicySettings) -> Policy:
    """Build the neural policy of two spaces: an encoder, a torso and the head that the action space asks for.

    Raises:
        TypeError: a space that no encoder or head knows (callers check spaces before).
        UsageError: an action mask that does not fit, or gSDE where actions are not numbers.
    """
    codec = ActionCodec.of(action_space)
    if settings.use_sde and codec.kind != "box":
        raise UsageError(f"use_sde needs a Box action space, and this one is {describe_space(action_space)}.")
    if settings.sde_sample_freq == 0:
        raise UsageError("sde_sample_freq=0 is out of range: it must be at least 1, or -1 for once per rollout.")
    encoder = Encoder.of(
        observation_space,
        normalise=settings.normalize_observations,
        clip=settings.clip_observations,
        mask_size=codec.mask_size,
    )
    if not encoder.leaves:
        raise UsageError(f"the observation space {describe_space(observation_space)} holds nothing to act on.")
    torso = _torso(encoder, settings)
    return Policy(encoder, torso, _head(codec, torso.outputs, settings), codec, settings.sde_sample_freq)


def make_critic(encoder: Encoder, settings: PolicySettings) -> Critic:
    """Build the value function that goes with a policy of the same settings."""
    torso = _torso(encoder, settings)
    return Critic(torso, Linear(torso.outputs, 1, 1.0, settings.initialiser))


def _torso(encoder: Encoder, settings: PolicySettings) -> Torso:
    return Torso(
        encoder.vector_size,
        encoder.image_shapes,
        settings.net_arch,
        settings.activation,
        settings.recurrent,
        settings.recurrent_size,
        settings.initialiser,
    )


def _head(codec: ActionCodec, width: int, settings: PolicySettings) -> Head:
    outputs = {"box": codec.size, "multi_binary": codec.size}.get(codec.kind, sum(codec.choices))
    linear = Linear(width, outputs, 0.01 if settings.ortho_init else 1.0, settings.initialiser)
    if codec.kind == "box":
        kind = StateDependentNoiseHead if settings.use_sde else GaussianHead
        return kind(linear, settings.log_std_init)
    if codec.kind == "discrete":
        return CategoricalHead(linear)
    if codec.kind == "multi_discrete":
        return MultiCategoricalHead(linear, codec.choices)
    return BernoulliHead(linear)
