r"""What states are worth by critics of actions: V(s), of which targets are made and which policies climb.

A critic judges actions at states, so a state is worth what a policy would do there: an action that it chooses, the mean
over all actions, or the soft maximum over them, which is what the best policy makes of them where entropy counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.off_policy.choices import Choice, Features
from jumar.critics.ensemble import ActionValues, Reduction
from jumar.policies.distributions import mask_logits
from jumar.policies.policy import Policy
from jumar.solvers.problem import Parameters


class States(NamedTuple):
    """States at which critics are asked."""

    features: Features
    """Encoded observations, ``[B]``."""
    masks: Array | None
    """Which of Discrete actions are allowed, boolean ``[B, actions]``, where there are masks."""
    action_shape: tuple[int, int]
    """``(B, d)``: the shape of an action at each of them, as critics see it."""
    taken: Array | None = None
    """The actions that were taken there, ``[B, d]``, where they are known."""


class Critics(Protocol):
    """Critics that can be asked about actions at some states."""

    @property
    def states(self) -> States:
        """The states, ``[B]``."""
        ...

    def of(self, actions: Array) -> Array:
        """Return Q of all critics, ``[n, ..., B]``, of actions ``[..., B, d]``."""
        ...

    def of_all(self) -> Array:
        """Return Q of all critics and of all Discrete actions, ``[n, B, actions]``."""
        ...


@dataclass(frozen=True)
class FixedCritics:
    """Critics that are asked as they are."""

    critic: ActionValues
    parameters: Parameters
    statistics: Any
    states: States
    key: Array
    """For critics with randomness of their own."""

    def of(self, actions: Array) -> Array:
        """Return Q of all critics, ``[n, ..., B]``, of actions ``[..., B, d]``."""
        features = self.states.features
        return self.critic.apply(self.parameters, self.statistics, features, actions, self.key, False)[0]

    def of_all(self) -> Array:
        """Return Q of all critics and of all Discrete actions, ``[n, B, actions]``."""
        return self.critic.of_all(self.parameters, self.statistics, self.states.features, self.key, False)[0]


class Valued(NamedTuple):
    """What states are worth under a policy, ``[B]`` each."""

    values: Array
    log_probs: Array
    r""":math:`E[\log \pi(a|s)]`, or a draw of it; 0 where entropy counts for nothing, NaN where it is not known."""


class StateValue(Protocol):
    """A part that says what a state is worth by the critics: V(s), a function that gradients pass through."""

    @property
    def follows(self) -> bool:
        """Whether it is worth that under the target policy, which follows the policy slowly."""
        ...

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        """Draw what is random in it, but for the critics; ``shape`` is that of an action at each state, ``(B, d)``."""
        ...

    def __call__(
        self, policy: Policy, parameters: Parameters, critics: Critics, alpha: Array, noise: Array, key: Array
    ) -> Valued:
        """Return what the critics' states are worth.

        Args:
            policy: the policy.
            parameters: its parameters.
            critics: the critics, ready to be asked.
            alpha: the temperature.
            noise: what :meth:`noise` drew.
            key: for drawing critics.
        """
        ...


class JointCritics:
    """Critics in training that are asked once, about some rows and about the successors' actions in one batch.

    What they say of the rows is known once they were asked.
    """

    def __init__(
        self,
        critic: ActionValues,
        parameters: Parameters,
        statistics: Any,
        key: Array,
        rows: States,
        actions: Array,
        successors: States,
    ) -> None:
        self._critic, self._parameters, self._key = critic, parameters, key
        self._rows, self._actions = rows, actions
        self.states, self.statistics = successors, statistics
        self.of_rows: Array = jnp.zeros(())
        """What all critics say of the rows' actions, ``[n, B, m]``, once they were asked."""

    def of(self, actions: Array) -> Array:
        """Return Q of all critics, ``[n, B]``, of one action at each of the successors ``[B, d]``."""
        both = jnp.concatenate([self._actions, actions])
        outputs, self.statistics = self._critic.outputs(
            self._parameters, self.statistics, self._features(), both, self._key, True
        )
        self.of_rows, of_successors = jnp.split(outputs, 2, axis=1)
        return self._critic.encoding.value(of_successors)

    def of_all(self) -> Array:
        """Return Q of all critics and of all Discrete actions at the successors, ``[n, B, actions]``."""
        outputs, self.statistics = self._critic.outputs_of_all(
            self._parameters, self.statistics, self._features(), self._key, True
        )
        of_rows, of_successors = jnp.split(outputs, 2, axis=1)
        self.of_rows = jnp.sum(of_rows * self._actions[..., None], axis=-2)
        return self._critic.encoding.value(of_successors)

    def _features(self) -> Features:
        rows, successors = self._rows.features, self.states.features
        return {name: jnp.concatenate([rows[name], successors[name]]) for name in rows}


def entropy_part(alpha: Array, log_probs: Array) -> Array:
    r"""Return :math:`\alpha \log \pi`, and 0 where the temperature is 0, however small the density."""
    return jnp.where(alpha > 0.0, alpha * jnp.where(alpha > 0.0, log_probs, 0.0), 0.0)


class Undrawn:
    """Base of the state values of the policy itself in which nothing is random but the critics."""

    follows = False

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        """Return nothing to speak of: nothing is drawn."""
        return jnp.zeros((), jnp.float32)


@dataclass(frozen=True)
class Nothing(Undrawn):
    """The part by which every state is worth 0, for methods without critics."""

    def __call__(
        self, policy: Policy, parameters: Parameters, critics: Critics, alpha: Array, noise: Array, key: Array
    ) -> Valued:
        """Return zeros."""
        zeros = jnp.zeros((critics.states.action_shape[0],), jnp.float32)
        return Valued(zeros, zeros)


@dataclass(frozen=True)
class Sampled:
    r"""The part by which a state is worth an action of the policy's choice, :math:`\min_k Q_k(s, a) - \alpha \log \pi(a|s)`."""

    choice: Choice
    reduction: Reduction
    """Which critics judge the action."""

    @property
    def follows(self) -> bool:
        """Whether it is the target policy that chooses."""
        return self.choice.follows

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        """Draw what is random in the choice."""
        return self.choice.noise(key, shape)

    def __call__(
        self, policy: Policy, parameters: Parameters, critics: Critics, alpha: Array, noise: Array, key: Array
    ) -> Valued:
        """Return the value of the action chosen."""
        chosen = self.choice(policy, parameters, critics.states.features, noise)
        value = self.reduction(critics.of(chosen.actions), key)
        return Valued(value - entropy_part(alpha, chosen.log_probs), chosen.log_probs)


@dataclass(frozen=True)
class Taken(Undrawn):
    r"""The part by which a state is worth the action that was taken there, :math:`Q(s, a)`, as in Sarsa.

    Where it is not known, as in the flight record, the policy's own takes its place.
    """

    reduction: Reduction

    def __call__(
        self, policy: Policy, parameters: Parameters, critics: Critics, alpha: Array, noise: Array, key: Array
    ) -> Valued:
        """Return the value of the action taken."""
        taken = critics.states.taken
        if taken is None:
            taken = policy.actions.to_unit(policy.at(parameters, critics.states.features).mode(), jnp)
        values = self.reduction(critics.of(taken), key)
        return Valued(values, jnp.zeros_like(values))


@dataclass(frozen=True)
class Expected(Undrawn):
    r"""The part by which a state is worth the mean over all Discrete actions,

    .. math::
        V(s) = \sum_a \pi(a|s) \, (\min_k Q_k(s, a) - \alpha \log \pi(a|s)).

    Source: Christodoulou 2019, *Soft Actor-Critic for Discrete Action Settings*.
    """

    reduction: Reduction

    def __call__(
        self, policy: Policy, parameters: Parameters, critics: Critics, alpha: Array, noise: Array, key: Array
    ) -> Valued:
        """Return the means; actions that are not allowed have probability 0."""
        distribution: Any = policy.at(parameters, critics.states.features, critics.states.masks)
        probs, log_probs = distribution.probs, distribution.log_probs
        values = self.reduction(critics.of_all(), key) - entropy_part(alpha, log_probs)
        return Valued(jnp.sum(probs * values, axis=-1), jnp.sum(probs * log_probs, axis=-1))


@dataclass(frozen=True)
class SoftMaximum(Undrawn):
    r"""The part by which a state is worth the soft maximum over Discrete actions,

    .. math::
        V(s) = \alpha \log \sum_a e^{\min_k Q_k(s, a) / \alpha},

    which is what it is worth under the policy :math:`\pi(a|s) \propto e^{\min_k Q_k(s, a) / \alpha}`, the best one for these
    values.

    Source: Haarnoja, Tang, Abbeel and Levine 2017, *Reinforcement Learning with Deep Energy-Based Policies*, theorem 1.
    """

    reduction: Reduction

    def __call__(
        self, policy: Policy, parameters: Parameters, critics: Critics, alpha: Array, noise: Array, key: Array
    ) -> Valued:
        """Return the soft maxima over the actions that are allowed; the policy does not matter."""
        scaled = mask_logits(self.reduction(critics.of_all(), key) / alpha, critics.states.masks)
        log_probs = jax.nn.log_softmax(scaled)
        negative_entropy = jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return Valued(alpha * jax.nn.logsumexp(scaled, axis=-1), negative_entropy)


@dataclass(frozen=True)
class SampledSoftMaximum:
    r"""The part by which a state is worth the soft maximum over a Box, by ``samples`` actions drawn uniformly from it,

    .. math::
        V(s) = \alpha \log \int e^{\min_k Q_k(s, a) / \alpha} da
        \approx \alpha \Big(\log \frac{1}{M} \sum_m e^{\min_k Q_k(s, a_m) / \alpha} + \sum_i \log 2 h_i\Big).

    The integral is over actions in the environment's units, with halves of ranges :math:`h_i`, as all densities are here. The
    mean of the exponentials is unbiased; its logarithm is too low, the less so the more samples there are.

    Source: Haarnoja, Tang, Abbeel and Levine 2017, *Reinforcement Learning with Deep Energy-Based Policies*, section 3.2.
    """

    reduction: Reduction
    samples: int
    half_range: tuple[float, ...]
    follows = False

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        """Draw actions, ``[M, B, d]`` in units of half of the range."""
        return jax.random.uniform(key, (self.samples, *shape), jnp.float32, -1.0, 1.0)

    def __call__(
        self, policy: Policy, parameters: Parameters, critics: Critics, alpha: Array, noise: Array, key: Array
    ) -> Valued:
        """Return the soft maxima; the policy does not matter, and its log-probabilities are not known."""
        scaled = self.reduction(critics.of(noise), key) / alpha
        log_volume = sum(math.log(2.0 * h) for h in self.half_range)
        values = alpha * (jax.nn.logsumexp(scaled, axis=0) - math.log(self.samples) + log_volume)
        return Valued(values, jnp.full_like(values, jnp.nan))
