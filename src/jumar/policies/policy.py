"""Policies: ``(parameters, features, carry, episode_start, mask) -> (distribution, carry)``.

A policy is a frozen description; its parameters are a pytree beside it. It is put together from an encoder (whose
moments are the policy's observation normaliser), a torso and a head that makes the distribution of the action space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.networks.layers import ACTIVATIONS, Initialiser, Linear, Parameters, Torso, orthogonal, uniform_fan_in
from jumar.networks.own import OwnNetwork
from jumar.policies.actions import ActionCodec
from jumar.policies.distributions import DiagGaussian, Distribution, Outcomes
from jumar.policies.features import Features, FeatureTorso
from jumar.policies.heads import (
    BernoulliHead,
    CategoricalHead,
    ClampedDeviation,
    DeterministicHead,
    FixedDeviation,
    FreeDeviation,
    GaussianHead,
    Head,
    LogLinearHead,
    MultiCategoricalHead,
    SamplerHead,
    Squashed,
    StateDependentNoiseHead,
    StateDeviation,
)
from jumar.policies.moments import RunningMoments
from jumar.policies.observations import Encoder
from jumar.policies.own_code import NO_CODE, OwnCode
from jumar.settings import Settings, setting
from jumar.spaces import describe_space
from jumar.trajectory import Batch


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


@dataclass(frozen=True, kw_only=True)
class PolicySettings(Settings):
    """The settings of a policy, its observation normaliser and its critic; they are saved in ``policy.json``."""

    net_arch: tuple[int, ...] = setting((64, 64), "sizes of the hidden layers of actor and critic", at_least=1)
    critic_net_arch: tuple[int, ...] | None = setting(
        None, "sizes of the critic's hidden layers; none: as the policy's", at_least=1
    )
    activation: str = setting("tanh", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    critic_activation: str | None = setting(
        None, "activation of the critic's hidden layers; none: as the policy's", choices=tuple(ACTIVATIONS)
    )
    policy_observations: tuple[str, ...] | None = setting(
        None, "keys of a Dict observation that the policy sees; none: all of them"
    )
    critic_observations: tuple[str, ...] | None = setting(
        None, "keys of a Dict observation that the critic sees, which may be more than the policy's; none: all of them"
    )
    ortho_init: bool = setting(
        True, "initialise weight matrices orthogonally (gain sqrt 2; last layer 0.01 for the policy, 1 for the critic)"
    )
    head_bias: bool = setting(
        True,
        "bias in the policy's last layer; without it and with net_arch none the policy is a table, or linear in its features",
    )
    log_std_init: float = setting(0.0, "initial log standard deviation of a Gaussian policy", at_least=-20, at_most=5)
    deviation: str = setting(
        "free",
        "standard deviation of a Gaussian policy; free: parameters of its own, the same in every state; fixed: stays at "
        "log_std_init; state: a function of the state; clamped: the same, its logarithm clipped to -20 and 2; none: a "
        "deterministic policy; sampler: not a Gaussian, but a network that maps noise to actions",
        choices=("free", "fixed", "state", "clamped", "none", "sampler"),
    )
    squash: bool = setting(
        False,
        "squash Gaussian actions into the bounds of their Box by tanh, instead of clipping what the environment receives",
    )
    use_sde: bool = setting(False, "explore with state-dependent noise (gSDE) in Box action spaces")
    sde_sample_freq: int = setting(-1, "steps between samples of the gSDE noise; -1: once per rollout", at_least=-1)
    sde_learn_features: bool = setting(False, "train the hidden layers through the noise of gSDE as well")
    sde_clip_mean: float = setting(
        0.0, "with gSDE, clip the mean to ± this before it is squashed; 0: no clipping", at_least=0
    )
    features_extractor: str = setting(
        "cnn",
        "how images and planes are read; cnn: by a convolutional network each; flatten: flattened and joined to the vector",
        choices=("cnn", "flatten"),
    )
    recurrent: str | None = setting(None, "recurrent core of actor and critic", choices=("gru", "lstm"))
    recurrent_size: int = setting(256, "width of the recurrent core", at_least=1)
    critic_time: str = setting(
        "none",
        "how the critic sees the number of steps since the episode began; none: not at all; scaled: as one more input, divided "
        "by critic_horizon; steps: by a last layer for each number of steps; the policy does not see it",
        choices=("none", "scaled", "steps"),
    )
    critic_horizon: int = setting(
        1000,
        "divisor of critic_time scaled; number of last layers of critic_time steps",
        unit="steps",
        at_least=1,
        at_most=100_000,
    )
    normalize_observations: bool = setting(False, "normalise observations by their running mean and variance")
    clip_observations: float = setting(10.0, "clip normalised observations to ± this", above=0)

    @classmethod
    def of(cls, settings: PolicySettings) -> PolicySettings:
        """Return the policy's part of an algorithm's settings."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    def check_action_space(self, space: gym.Space[Any]) -> None:
        """Refuse an action space that the method is not for, whatever its policy; by default none.

        Raises:
            UsageError: the message says what would be right.
        """

    @property
    def initialiser(self) -> Initialiser:
        """How matrices are drawn."""
        return orthogonal if self.ortho_init else uniform_fan_in


class Decision(NamedTuple):
    """What a policy does in ``N`` environments, and what it comes from."""

    actions: Array
    carry: Carry
    mask: Array | None
    """Which actions are allowed, where not all are."""
    outcomes: Outcomes
    """What the actions are drawn from, or its mode is."""


@dataclass(frozen=True)
class Policy:
    """A stochastic policy; see the module's text."""

    encoder: Encoder
    torso: Torso | FeatureTorso
    head: Head | DeterministicHead | SamplerHead
    actions: ActionCodec
    sde_sample_freq: int = -1

    def init(self, key: Array) -> Parameters:
        """Draw parameters: ``{"torso": ..., "head": ...}``."""
        first, second = jax.random.split(key)
        return {"torso": self.torso.init(first), "head": self.head.init(second)}

    def count_parameters(self) -> int:
        """Return how many numbers the parameters are."""
        shapes = jax.eval_shape(self.init, jax.random.PRNGKey(0))
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

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
    ) -> tuple[Outcomes, Any]:
        """Return the distribution at features ``[..., ]`` and the recurrent core's new carry."""
        latent, core = self.torso.apply(parameters["torso"], features, core, episode_start)
        return self.head.distribution(parameters["head"], latent, mask), core

    def at(self, parameters: Parameters, features: Parameters, mask: Array | None = None) -> Outcomes:
        """Return the distribution at features ``[...]`` of a policy without memory."""
        return self.distribution(parameters, features, (), jnp.zeros((), bool), mask)[0]

    def noise(self, key: Array, n_envs: int) -> Array:
        """Draw the noise of one :meth:`act` in ``n_envs`` environments."""
        return self.head.noise(key, n_envs)

    def rollout_noise(self, keys: Array, n_envs: int) -> Array:
        """Draw the noise of a whole rollout at once, a row for each of ``keys`` ``[T, 2]``.

        It is what :meth:`noise` draws step by step, without what random numbers cost in a program that is small
        otherwise.
        """
        return jax.vmap(lambda key: self.noise(key, n_envs))(keys)

    def act(
        self,
        parameters: Parameters,
        moments: RunningMoments,
        observation: Any,
        carry: Carry,
        episode_start: Array,
        mask: Array | None,
        noise: Array | None = None,
    ) -> tuple[Array, Carry]:
        """Return random actions of ``N`` environments, made from ``noise``, or without it the distributions' modes.

        The observation normaliser is left as it is.
        """
        decision = self.decide(parameters, moments, observation, carry, episode_start, mask, noise)
        return decision.actions, decision.carry

    def decide(
        self,
        parameters: Parameters,
        moments: RunningMoments,
        observation: Any,
        carry: Carry,
        episode_start: Array,
        mask: Array | None,
        noise: Array | None = None,
    ) -> Decision:
        """Return the actions of :meth:`act`, and what they come from."""
        features = self.encoder.encode_to_act(observation, moments)
        mask = self.encoder.mask(observation, mask)
        latent, core = self.torso.apply(parameters["torso"], features, carry.core, episode_start)
        outcomes = self.head.distribution(parameters["head"], latent, mask)
        carry = carry._replace(core=core)
        if noise is None:
            return Decision(outcomes.mode(), carry, mask, outcomes)
        if not isinstance(self.head, StateDependentNoiseHead):
            return Decision(outcomes.outcome(noise), carry, mask, outcomes)
        exploration = self._refresh(parameters["head"], carry.exploration, noise)
        action = self.head.explore(parameters["head"], latent, exploration.matrix)
        carry = carry._replace(exploration=exploration._replace(age=exploration.age + 1))
        return Decision(action, carry, mask, outcomes)

    def evaluate(self, parameters: Parameters, batch: Batch) -> Distribution:
        """Return the distributions at all rows of a batch (whole sequences for a recurrent policy)."""
        carry = batch.carry.core if self.recurrent else ()
        latent, _ = self.torso.unroll(parameters["torso"], batch.features, carry, batch.episode_start)
        return self._stochastic_head.distribution(parameters["head"], latent, batch.action_masks)

    def evaluate_both(
        self, parameters: Parameters, batch: Batch, successors: Parameters, successor_masks: Array | None
    ) -> tuple[Distribution, Distribution]:
        """Return the distributions at all rows of sequences ``[N, T, ...]`` and at their true successors.

        A recurrent policy sees each successor with the memory of its own episode.
        """
        carry = batch.carry.core if self.recurrent else ()
        latent, carries = self.torso.unroll(parameters["torso"], batch.features, carry, batch.episode_start)
        never = jnp.zeros_like(batch.episode_start)
        next_latent, _ = self.torso.apply(parameters["torso"], successors, carries, never)
        here = self._stochastic_head.distribution(parameters["head"], latent, batch.action_masks)
        return here, self._stochastic_head.distribution(parameters["head"], next_latent, successor_masks)

    @property
    def _stochastic_head(self) -> Head:
        assert not isinstance(self.head, (DeterministicHead, SamplerHead)), "the policy has no density"
        return self.head

    def _refresh(self, parameters: Parameters, exploration: Exploration, key: Array) -> Exploration:
        head = self.head
        assert isinstance(head, StateDependentNoiseHead)
        due = exploration.age == 0
        if self.sde_sample_freq > 0:
            due = due | (exploration.age % self.sde_sample_freq == 0)
        batch = exploration.matrix.shape[:-2]
        matrix = jax.lax.cond(due, lambda: head.draw(parameters, key, batch), lambda: exploration.matrix)
        return exploration._replace(matrix=matrix)


def make_policy(
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    settings: PolicySettings,
    own: OwnCode = NO_CODE,
) -> Policy:
    """Build the policy of two spaces: an encoder, a torso and the head that the action space asks for.

    Args:
        observation_space: what is observed.
        action_space: what is done.
        settings: all else.
        own: the user's code: a function that the policy is linear in, in the place of a neural torso, or a network that encodes
            observations, in the place of Jumar's.

    Raises:
        TypeError: a space that no encoder or head knows (callers check spaces before).
        UsageError: an action space that the method is not for, an action mask that does not fit, or settings of noise or bounds
            that do not; features that are no vector, or are not for these spaces.
    """
    settings.check_action_space(action_space)
    codec = ActionCodec.of(action_space, settings.squash)
    _check_noise(codec, action_space, settings)
    if settings.sde_sample_freq == 0:
        raise UsageError("sde_sample_freq=0 is out of range: it must be at least 1, or -1 for once per rollout.")
    encoder = Encoder.of(
        observation_space,
        normalise=settings.normalize_observations,
        clip=settings.clip_observations,
        mask_size=codec.mask_size,
        flatten=settings.features_extractor == "flatten",
        acting=settings.policy_observations,
        judging=settings.critic_observations,
        own=own.encoder,
    )
    if not encoder.leaves:
        raise UsageError(f"the observation space {describe_space(observation_space)} holds nothing to act on.")
    if own.features is not None:
        if own.encoder is not None:
            raise UsageError("features and an encoder do not go together; leave one of them out.")
        torso = _feature_torso(own.features, encoder, codec, settings)
        if codec.kind == "discrete":
            return Policy(encoder, torso, LogLinearHead(codec.choices[0], torso.outputs), codec)
    else:
        torso = make_torso(encoder, settings)
    head = _head(codec, torso.outputs, settings)
    return Policy(encoder, torso, head, codec, settings.sde_sample_freq)


def make_torso(encoder: Encoder, settings: PolicySettings) -> Torso:
    """Build the policy's network from encoded observations to a latent vector."""
    return _torso(encoder, settings, settings.policy_observations, settings.net_arch, settings.activation)


def make_critic_torso(encoder: Encoder, settings: PolicySettings) -> Torso:
    """Build the critic's network from encoded observations to a latent vector."""
    sizes = settings.net_arch if settings.critic_net_arch is None else settings.critic_net_arch
    activation = settings.critic_activation or settings.activation
    return _torso(encoder, settings, settings.critic_observations, sizes, activation)


def _torso(
    encoder: Encoder,
    settings: PolicySettings,
    keys: tuple[str, ...] | None,
    sizes: tuple[int, ...],
    activation: str,
) -> Torso:
    seen, images = encoder.seen(keys), encoder.images
    torso = Torso(
        encoder.vector_size if seen is None else seen.width,
        images if seen is None else tuple(images[i] for i in seen.images),
        sizes,
        activation,
        settings.recurrent,
        settings.recurrent_size,
        settings.initialiser,
        seen=seen,
    )
    if encoder.own is None:
        return torso
    if settings.critic_time == "scaled":
        raise UsageError(
            "critic_time=scaled adds an input that an encoder of your own does not know; take steps, or none."
        )
    network = OwnNetwork.of(encoder.own, encoder.parts(keys))
    return replace(torso, vector=network.outputs, images=(), seen=None, own=network)


def _feature_torso(features: Features, encoder: Encoder, codec: ActionCodec, settings: PolicySettings) -> FeatureTorso:
    """Return the part that computes features.

    Raises:
        UsageError: they are not for these spaces or settings.
    """
    if codec.kind not in ("discrete", "box"):
        raise UsageError("features are for Discrete and Box action spaces; leave them out, or divide the action.")
    if settings.recurrent is not None:
        raise UsageError(
            f"features have no memory, and recurrent={settings.recurrent} asks for one; leave one of them out."
        )
    if settings.policy_observations is not None:
        raise UsageError("features are functions of the whole observation; leave policy_observations out.")
    if encoder.images:
        raise UsageError("features are functions of a vector, and the observation has an image; leave them out.")
    return FeatureTorso.of(features, encoder.vector_size, codec.choices[0] if codec.kind == "discrete" else None)


def _head(codec: ActionCodec, width: int, settings: PolicySettings) -> Head | DeterministicHead | SamplerHead:
    outputs = {"box": codec.size, "multi_binary": codec.size}.get(codec.kind, sum(codec.choices))
    scale = 0.01 if settings.ortho_init else 1.0
    linear = Linear(width, outputs, scale, settings.initialiser, settings.head_bias)
    if codec.kind == "box":
        return _box_head(codec, linear, settings)
    if codec.kind == "discrete":
        return CategoricalHead(linear)
    if codec.kind == "multi_discrete":
        return MultiCategoricalHead(linear, codec.choices)
    return BernoulliHead(linear)


def _check_noise(codec: ActionCodec, action_space: gym.Space[Any], settings: PolicySettings) -> None:
    """Refuse noise that the action space cannot have, and two kinds of it at once."""
    usual = settings.deviation in ("free", "clamped", "sampler")
    asked = {"use_sde": settings.use_sde, f"deviation={settings.deviation}": not usual}
    for name, given in asked.items():
        # None is what some methods always have: bc, which takes Discrete actions too.
        if given and codec.kind != "box" and name != "deviation=none":
            raise UsageError(f"{name} needs a Box action space, and this one is {describe_space(action_space)}.")
    if all(asked.values()):
        raise UsageError(
            f"use_sde has a deviation of its own and does not go with deviation={settings.deviation}; leave that free."
        )


def _box_head(codec: ActionCodec, linear: Linear, settings: PolicySettings) -> Head | DeterministicHead | SamplerHead:
    density = Squashed(codec.half_range) if settings.squash else DiagGaussian
    if settings.use_sde:
        trains, size = settings.sde_learn_features, settings.sde_clip_mean or None
        return StateDependentNoiseHead(linear, settings.log_std_init, density, trains, size)
    if settings.deviation == "none":
        return DeterministicHead(linear)
    if settings.deviation == "sampler":
        return SamplerHead(linear)
    deviations = {
        "free": FreeDeviation(linear.outputs, settings.log_std_init),
        "fixed": FixedDeviation(linear.outputs, settings.log_std_init),
        "state": StateDeviation(linear, settings.log_std_init),
        "clamped": ClampedDeviation(linear, settings.log_std_init),
    }
    return GaussianHead(linear, deviations[settings.deviation], density)
