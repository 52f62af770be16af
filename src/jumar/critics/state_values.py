"""Critics: value functions, networks of their own beside the policy's, but for convolutional ones that may be shared.

What is shared, :mod:`jumar.critics.sharing` says.

The value of a state may depend on how much of the episode is left, where a time limit ends it: :math:`V_h(s)`. A critic can
see the time for that; the policy does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.networks.layers import Linear, Parameters, Torso
from jumar.policies.observations import Encoder
from jumar.policies.policy import PolicySettings, make_critic_torso
from jumar.trajectory import Batch, of_actions

TIME = "time"
"""The name that the steps since the episode began, int32 ``[...]``, have among the features of a critic that sees them."""


class Critic(Protocol):
    """What an update needs of a state-value function."""

    @property
    def recurrent(self) -> bool:
        """Whether the critic has a memory."""
        ...

    @property
    def sees_time(self) -> bool:
        """Whether its features must have :data:`TIME` among them."""
        ...

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        ...

    def initial_carry(self, n_envs: int) -> Any:
        """Return the carry before any step."""
        ...

    def evaluate(self, parameters: Parameters, batch: Batch) -> Array:
        """Return V at all rows of a batch."""
        ...

    def values(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return V of observations and of true successors of sequences ``[N, T, ...]``, and the carry after them."""
        ...


class Timing(Protocol):
    """A part that says how a critic sees the time."""

    needed: bool
    """Whether features must have :data:`TIME`."""

    def seen(self, features: Parameters) -> Parameters:
        """Return the features that the torso takes."""
        ...

    def chosen(self, outputs: Array, features: Parameters) -> Array:
        """Return the critic's outputs ``[..., n]``, of those of the last layer."""
        ...


@dataclass(frozen=True)
class Timeless:
    """The part of critics that do not see the time."""

    needed = False

    def seen(self, features: Parameters) -> Parameters:
        """Return the features as they are."""
        return features

    def chosen(self, outputs: Array, features: Parameters) -> Array:
        """Return the outputs as they are."""
        return outputs


@dataclass(frozen=True)
class ScaledTime:
    """The part by which the torso's vector has one more entry, ``t / horizon``; it is above 1 after the horizon."""

    horizon: int

    needed = True

    def seen(self, features: Parameters) -> Parameters:
        """Append the time to the vector."""
        share = (features[TIME].astype(jnp.float32) / self.horizon)[..., None]
        vector = jnp.concatenate([features["vector"], share], axis=-1) if "vector" in features else share
        return {**features, "vector": vector}

    def chosen(self, outputs: Array, features: Parameters) -> Array:
        """Return the outputs as they are."""
        return outputs


@dataclass(frozen=True)
class LayerPerStep:
    r"""The part by which each step has a last layer of its own, :math:`V_t(s) = w_t^T z(s) + b_t` for ``t`` up to the horizon.

    Without hidden layers the critic of Discrete states is a table of :math:`V_t(s)`. Later steps have the layer of the
    horizon.
    """

    horizon: int

    needed = True

    def seen(self, features: Parameters) -> Parameters:
        """Return the features as they are."""
        return features

    def chosen(self, outputs: Array, features: Parameters) -> Array:
        """Return the outputs ``[..., n]`` of each row's step, of ``[..., (horizon + 1) n]``."""
        steps = self.horizon + 1
        by_step = outputs.reshape(*outputs.shape[:-1], steps, outputs.shape[-1] // steps)
        here = jax.nn.one_hot(jnp.minimum(features[TIME], self.horizon), steps, dtype=bool)
        return jnp.sum(jnp.where(here[..., None], by_step, 0.0), axis=-2)


@dataclass(frozen=True)
class TorsoCritic:
    """Base of the critics that are linear in the latent vector of a torso of their own."""

    torso: Torso
    linear: Linear
    timing: Timing = Timeless()

    def init(self, key: Array) -> Parameters:
        """Draw parameters: ``{"torso": ..., "head": ...}``."""
        first, second = jax.random.split(key)
        return {"torso": self.torso.init(first), "head": self.linear.init(second)}

    @property
    def recurrent(self) -> bool:
        """Whether the critic has a memory."""
        return self.torso.core is not None

    @property
    def sees_time(self) -> bool:
        """Whether its features must have the time among them."""
        return self.timing.needed

    def initial_carry(self, n_envs: int) -> Any:
        """Return the carry before any step."""
        return self.torso.initial_carry((n_envs,))

    def outputs(self, parameters: Parameters, batch: Batch) -> Array:
        """Return the outputs at all rows of a batch, ``[..., n]``."""
        carry = batch.critic_carry if self.recurrent else ()
        latent, _ = self.torso.unroll(parameters["torso"], self.timing.seen(batch.features), carry, batch.episode_start)
        return self._last_layer(parameters, latent, batch.features)

    def outputs_of_sequences(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return the outputs at observations and true successors of sequences ``[N, T, ...]``, and the carry after them.

        A recurrent critic sees each successor with the memory of its own episode.
        """
        features, successors = self.torso.embed_sequences(parameters["torso"], features, successors)
        latent, carries = self.torso.unroll(parameters["torso"], self.timing.seen(features), carry, episode_start)
        never = jnp.zeros_like(episode_start)
        next_latent, _ = self.torso.apply(parameters["torso"], self.timing.seen(successors), carries, never)
        last = jax.tree.map(lambda x: x[:, -1], carries)
        outputs = self._last_layer(parameters, latent, features)
        return outputs, self._last_layer(parameters, next_latent, successors), last

    def _last_layer(self, parameters: Parameters, latent: Array, features: Parameters) -> Array:
        return self.timing.chosen(self.linear.apply(parameters["head"], latent), features)


@dataclass(frozen=True)
class NeuralCritic(TorsoCritic):
    """A state-value function with a torso of its own."""

    def evaluate(self, parameters: Parameters, batch: Batch) -> Array:
        """Return V at all rows of a batch."""
        return self.outputs(parameters, batch)[..., 0]

    def values(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return V of observations and of true successors of sequences ``[N, T, ...]``, and the carry after them."""
        values, next_values, last = self.outputs_of_sequences(parameters, features, successors, carry, episode_start)
        return values[..., 0], next_values[..., 0], last


@dataclass(frozen=True)
class ActionValueCritic(TorsoCritic):
    """An action-value function of a Discrete space, with a torso of its own: Q of all actions at once."""

    def evaluate(self, parameters: Parameters, batch: Batch) -> Array:
        """Return Q of all actions at all rows of a batch, ``[..., n]``."""
        return self.outputs(parameters, batch)

    def values(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return Q of all actions, ``[N, T, n]``, at observations and at true successors, and the carry after them."""
        return self.outputs_of_sequences(parameters, features, successors, carry, episode_start)


@dataclass(frozen=True)
class TakenActionCritic(TorsoCritic):
    """An action-value function of a Discrete space that is fitted to what the actions taken came to.

    It differs from :class:`ActionValueCritic` in that a row is judged by the one action that was taken in it.
    """

    def evaluate(self, parameters: Parameters, batch: Batch) -> Array:
        """Return Q of the actions taken at all rows of a batch."""
        return of_actions(self.outputs(parameters, batch), batch.actions)

    def values(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return Q of all actions, ``[N, T, n]``, at observations and at true successors, and the carry after them."""
        return self.outputs_of_sequences(parameters, features, successors, carry, episode_start)


@dataclass(frozen=True)
class NoCritic:
    """The critic of methods that have none: it values everything at 0, and there is nothing to fit."""

    @property
    def recurrent(self) -> bool:
        """It has no memory."""
        return False

    @property
    def sees_time(self) -> bool:
        """It sees nothing."""
        return False

    def init(self, key: Array) -> Parameters:
        """Return no parameters."""
        return {}

    def initial_carry(self, n_envs: int) -> tuple[()]:
        """Return nothing to remember."""
        return ()

    def evaluate(self, parameters: Parameters, batch: Batch) -> Array:
        """Return 0 at all rows of a batch."""
        return jnp.zeros_like(batch.weights)

    def values(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return 0 for all rows."""
        nothing = jnp.zeros(episode_start.shape, jnp.float32)
        return nothing, nothing, carry


@dataclass(frozen=True)
class CriticPair:
    """A critic of rewards beside one of costs, networks of their own; its values are those of the former.

    Parameters and carries are ``{"reward": ..., "cost": ...}``.
    """

    reward: Critic
    cost: Critic

    @property
    def recurrent(self) -> bool:
        """Whether the critics have a memory."""
        return self.reward.recurrent or self.cost.recurrent

    @property
    def sees_time(self) -> bool:
        """Whether the features must have the time among them."""
        return self.reward.sees_time or self.cost.sees_time

    def init(self, key: Array) -> Parameters:
        """Draw parameters; those of the critic of rewards are what it would draw alone."""
        return {"reward": self.reward.init(key), "cost": self.cost.init(jax.random.fold_in(key, 1))}

    def initial_carry(self, n_envs: int) -> Any:
        """Return the carry before any step."""
        return {"reward": self.reward.initial_carry(n_envs), "cost": self.cost.initial_carry(n_envs)}

    def evaluate(self, parameters: Parameters, batch: Batch) -> Array:
        """Return the value of rewards at all rows of a batch."""
        return self.reward.evaluate(parameters["reward"], self._seen_by("reward", batch))

    def evaluate_costs(self, parameters: Parameters, batch: Batch) -> Array:
        """Return the value of costs at all rows of a batch."""
        return self.cost.evaluate(parameters["cost"], self._seen_by("cost", batch))

    def values(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return the values of rewards, as any critic does; the carry of the critic of costs stays as it is."""
        return self._values_of("reward", self.reward, parameters, features, successors, carry, episode_start)

    def cost_values(
        self, parameters: Parameters, features: Parameters, successors: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Array, Any]:
        """Return the values of costs; the carry of the critic of rewards stays as it is."""
        return self._values_of("cost", self.cost, parameters, features, successors, carry, episode_start)

    def _values_of(
        self,
        half: str,
        critic: Critic,
        parameters: Parameters,
        features: Any,
        successors: Any,
        carry: Any,
        starts: Array,
    ) -> tuple[Array, Array, Any]:
        values, next_values, last = critic.values(parameters[half], features, successors, carry[half], starts)
        return values, next_values, {**carry, half: last}

    def _seen_by(self, half: str, batch: Batch) -> Batch:
        return batch._replace(critic_carry=batch.critic_carry[half]) if self.recurrent else batch


def make_critic(encoder: Encoder, settings: PolicySettings) -> NeuralCritic:
    """Build the value function that goes with a policy of the same settings."""
    return NeuralCritic(*_parts(encoder, settings, 1))


def make_action_value_critic(encoder: Encoder, settings: PolicySettings, n_actions: int) -> ActionValueCritic:
    """Build the action-value function that goes with a policy of the same settings."""
    return ActionValueCritic(*_parts(encoder, settings, n_actions))


def make_taken_action_critic(encoder: Encoder, settings: PolicySettings, n_actions: int) -> TakenActionCritic:
    """Build the action-value function of a policy of the same settings whose rows are judged by the actions taken."""
    return TakenActionCritic(*_parts(encoder, settings, n_actions))


def _parts(encoder: Encoder, settings: PolicySettings, outputs: int) -> tuple[Torso, Linear, Timing]:
    """Return the torso, the last layer and the timing of a critic of so many outputs."""
    torso, horizon = make_critic_torso(encoder, settings), settings.critic_horizon
    timing: Timing = Timeless()
    if settings.critic_time == "scaled":
        seen, last = torso.seen, encoder.vector_size  # where the time lies
        with_time = None if seen is None else replace(seen, ranges=(*seen.ranges, (last, last + 1)))
        timing, torso = ScaledTime(horizon), replace(torso, vector=torso.vector + 1, seen=with_time)
    elif settings.critic_time == "steps":
        timing, outputs = LayerPerStep(horizon), (horizon + 1) * outputs
    return torso, Linear(torso.outputs, outputs, 1.0, settings.initialiser), timing
