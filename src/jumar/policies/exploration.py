"""Behaviours: what acts while experience is collected, a policy with its exploration.

A behaviour is asked for actions by whatever steps environments. It keeps what it must remember from one step to the next
(the memory of a recurrent policy, noise that is correlated in time) in a carry, and it is given all random numbers of a step
from outside, so that those of many steps can be drawn at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.policies.distributions import Categorical, mask_logits
from jumar.policies.moments import RunningMoments
from jumar.policies.policy import Carry, Policy
from jumar.schedules import Schedule, schedule


class Acting(NamedTuple):
    """What a behaviour acts by: the part of a learner that it needs."""

    parameters: Any
    """The policy's."""
    moments: RunningMoments
    """The observation normaliser."""
    steps: Any = ()
    """Environment steps so far, int32, where the behaviour changes with them."""
    remaining: Any = ()
    """The share of training that is left, where the behaviour has a schedule."""


class Acted(NamedTuple):
    """What N environments are to do."""

    kept: Array
    """The actions as experience keeps them."""
    given: Array
    """Valid actions of the environments, in their dtype."""
    carry: Any
    """What the behaviour remembers."""


class Behaviour(Protocol):
    """What acts while experience is collected."""

    @property
    def recurrent(self) -> bool:
        """Whether its actions depend on where episodes start."""
        ...

    def initial_carry(self, n_envs: int) -> Any:
        """Return what it remembers before any step of ``n_envs`` environments."""
        ...

    def begin_rollout(self, carry: Any) -> Any:
        """Return the carry with which a rollout begins."""
        ...

    def rollout_noise(self, keys: Array, n_envs: int) -> Any:
        """Draw the random numbers of a whole rollout, arrays with a row for each of ``keys`` ``[T, 2]``."""
        ...

    def act(
        self, acting: Acting, observation: Any, carry: Any, episode_start: Array, mask: Array | None, noise: Any
    ) -> Acted:
        """Return the actions of ``N`` environments; ``noise`` is a row of :meth:`rollout_noise`."""
        ...


@dataclass(frozen=True)
class Drawing:
    """The behaviour that draws actions from the policy, whose own actions are kept, for their log-probabilities."""

    policy: Policy

    @property
    def recurrent(self) -> bool:
        """Whether the policy has a memory."""
        return self.policy.recurrent

    def initial_carry(self, n_envs: int) -> Carry:
        """Return the policy's carry before any step."""
        return self.policy.initial_carry(n_envs)

    def begin_rollout(self, carry: Carry) -> Carry:
        """Return the policy's carry at the beginning of a rollout."""
        return self.policy.begin_rollout(carry)

    def rollout_noise(self, keys: Array, n_envs: int) -> Array:
        """Draw what the policy's actions are made from."""
        return self.policy.rollout_noise(keys, n_envs)

    def act(
        self, acting: Acting, observation: Any, carry: Carry, episode_start: Array, mask: Array | None, noise: Any
    ) -> Acted:
        """Return the policy's actions and what they are in the environment."""
        actions, carry = self.policy.act(
            acting.parameters, acting.moments, observation, carry, episode_start, mask, noise
        )
        return Acted(actions, self.policy.actions.to_environment(actions, jnp), carry)


class ActionNoise(Protocol):
    """A part that adds noise to actions in units of half of their range, where the bounds are -1 and 1."""

    def initial(self, shape: tuple[int, ...]) -> Any:
        """Return what it remembers before any step; ``shape`` is ``(N, d)``."""
        ...

    def add(
        self, actions: Array, memory: Any, episode_start: Array, normal: Array, remaining: Any
    ) -> tuple[Array, Any]:
        """Return actions ``[N, d]`` with noise, not clipped yet, and what is remembered.

        Args:
            actions: in units of half of the range.
            memory: what the last call returned.
            episode_start: ``[N]``, whether an environment is at its episode's first step.
            normal: standard normal numbers ``[N, d]``.
            remaining: the share of training that is left.
        """
        ...


@dataclass(frozen=True)
class NoNoise:
    """The part that adds nothing."""

    def initial(self, shape: tuple[int, ...]) -> tuple[()]:
        """Return nothing to remember."""
        return ()

    def add(
        self, actions: Array, memory: Any, episode_start: Array, normal: Array, remaining: Any
    ) -> tuple[Array, Any]:
        """Return the actions as they are."""
        return actions, memory


@dataclass(frozen=True)
class NormalNoise:
    r"""Gaussian noise, independent from step to step: :math:`a + \sigma \epsilon`, :math:`\epsilon \sim N(0, I)`.

    Source: Fujimoto, van Hoof and Meger 2018, *Addressing Function Approximation Error in Actor-Critic Methods*, section 6.1.
    """

    scale: Schedule

    def initial(self, shape: tuple[int, ...]) -> tuple[()]:
        """Return nothing to remember."""
        return ()

    def add(
        self, actions: Array, memory: Any, episode_start: Array, normal: Array, remaining: Any
    ) -> tuple[Array, Any]:
        """Return the actions with noise."""
        return actions + self.scale(remaining) * normal, memory


OU_DECAY = 0.15
r"""The :math:`\theta` of Ornstein-Uhlenbeck noise per step, as in the paper of DDPG."""


@dataclass(frozen=True)
class OrnsteinUhlenbeckNoise:
    r"""Noise that is correlated in time: :math:`x_t = (1 - \theta) x_{t-1} + \sigma \epsilon_t`, :math:`\theta` = 0.15.

    Each environment has a process of its own, which begins at 0 with each of its episodes.

    Source: Lillicrap et al. 2016, *Continuous control with deep reinforcement learning*, section 7; there
    :math:`\sigma` is 0.2.
    """

    scale: Schedule

    def initial(self, shape: tuple[int, ...]) -> Array:
        """Return processes at 0."""
        return jnp.zeros(shape, jnp.float32)

    def add(
        self, actions: Array, memory: Any, episode_start: Array, normal: Array, remaining: Any
    ) -> tuple[Array, Any]:
        """Return the actions with the next step of each process added, and the processes."""
        begun = jnp.where(episode_start[:, None], 0.0, memory)
        memory = (1.0 - OU_DECAY) * begun + self.scale(remaining) * normal
        return actions + memory, memory


NOISES: dict[str, type[NormalNoise] | type[OrnsteinUhlenbeckNoise]] = {
    "normal": NormalNoise,
    "ou": OrnsteinUhlenbeckNoise,
}


def parse_noise(text: str | None) -> ActionNoise:
    """Return the noise that a setting names: ``normal:0.1``, ``ou:0.2``, ``normal:linear:0.2``, or none.

    Raises:
        UsageError: it names none, or its size is not a number of at least 0 or a schedule.
    """
    if text is None:
        return NoNoise()
    kind, _, size = text.partition(":")
    said = "write none, normal:0.1 or ou:0.2, the size in half ranges of the action (a schedule such as linear:0.2 is fine)"
    if kind not in NOISES or not size:
        raise UsageError(f"action_noise={text} is no noise; {said}.")
    try:
        scale = schedule(size)
    except (UsageError, ValueError, TypeError):
        raise UsageError(f"action_noise={text}: {size!r} is neither a number nor a schedule; {said}.") from None
    if not all(0.0 <= scale(left) <= 10.0 for left in (1.0, 0.0)):
        raise UsageError(f"action_noise={text} is out of range: its size must be at least 0 and at most 10.")
    return NOISES[kind](scale)


@dataclass(frozen=True)
class ExploringChoices:
    """The behaviour of off-policy methods for Discrete actions: random ones at first, then the policy's own draws.

    Both are drawn among the actions that are allowed, by the same noise. What is kept are the actions that the environments
    were given, float32 ``[N, 1]``.
    """

    policy: Policy
    random_steps: int
    """Until so many environment steps, actions are drawn uniformly."""

    recurrent = False

    def initial_carry(self, n_envs: int) -> Carry:
        """Return the policy's carry, which is empty."""
        return self.policy.initial_carry(n_envs)

    def begin_rollout(self, carry: Carry) -> Carry:
        """Return the carry as it is."""
        return carry

    def rollout_noise(self, keys: Array, n_envs: int) -> Array:
        """Draw what the policy's actions are made from."""
        return self.policy.rollout_noise(keys, n_envs)

    def act(
        self, acting: Acting, observation: Any, carry: Carry, episode_start: Array, mask: Array | None, noise: Any
    ) -> Acted:
        """Return the actions given to the environments."""
        policy, codec = self.policy, self.policy.actions
        features = policy.encoder.encode(observation, acting.moments)
        mask = policy.encoder.mask(observation, mask)
        own: Any = policy.at(acting.parameters, features, mask)
        # One draw from either: XLA on processors fails to compile two of them side by side.
        indifferent = mask_logits(jnp.zeros_like(own.logits), mask)
        drawn = Categorical(jnp.where(acting.steps < self.random_steps, indifferent, own.logits))
        actions = drawn.outcome(noise)
        given = codec.to_environment(actions, jnp)
        return Acted(given.astype(jnp.float32)[:, None], given, carry)


@dataclass(frozen=True)
class Persistence:
    r"""The part by which each environment keeps its noise for k steps, drawn anew each time with
    :math:`P(k) \propto k^{-2}`, k = 1 ... ``longest``; noise ends with its episode.

    Most draws last one step, and some last long: what is tried is tried for long enough to lead somewhere.

    Source: Dabney, Ostrovski and Barreto 2021, *Temporally-Extended epsilon-Greedy Exploration*, section 4 (there actions are
    kept; here what they are drawn with).
    """

    longest: int

    def initial(self, noise: Any) -> Any:
        """Return what is remembered before any step, noise that is over; ``noise`` has its shapes ``[N, ...]``."""
        n_envs = jax.tree.leaves(noise)[0].shape[0]
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), noise), jnp.zeros((n_envs,), jnp.int32)

    def steps(self, uniform: Array) -> Array:
        """Return for how many steps noise is kept, int32, by uniform numbers in [0, 1)."""
        shares = np.arange(1, self.longest + 1, dtype=np.float64) ** -2.0
        bounds = np.cumsum(shares / shares.sum())[:-1].astype(np.float32)
        return 1 + jnp.searchsorted(jnp.asarray(bounds), uniform, side="right").astype(jnp.int32)

    def kept(self, memory: Any, drawn: Any, episode_start: Array, uniform: Array) -> tuple[Any, Any]:
        """Return the noise of this step and what is remembered; ``drawn`` is what takes the place of noise that is over."""
        old, left = memory
        over = episode_start | (left == 0)
        now = jax.tree.map(lambda a, b: jnp.where(over.reshape(-1, *(1,) * (a.ndim - 1)), a, b), drawn, old)
        return now, (now, jnp.where(over, self.steps(uniform), left) - 1)


class ExploringCarry(NamedTuple):
    """What :class:`Exploring` remembers from step to step."""

    policy: Carry
    noise: Any
    kept: Any = ()
    """Noise that is kept, where it is."""


LASTING = ("policy", "normal")
"""What of a step's random numbers can be kept for several steps."""


@dataclass(frozen=True)
class Exploring:
    """The behaviour of off-policy methods in a Box: random actions at first, then the policy's with noise.

    What is kept are the actions that the environments were given, float32 ``[N, d]``: critics judge what was done, not what
    was meant.
    """

    policy: Policy
    """One whose actions are squashed into the bounds."""
    noise: ActionNoise
    random_steps: int
    """Until so many environment steps, actions are drawn uniformly from the Box."""
    persistence: Persistence | None = None
    """For how many steps noise is kept; ``None``: for one."""

    @property
    def recurrent(self) -> bool:
        """Whether it minds where episodes start: noise that lasts, or is correlated in time, begins anew there."""
        return isinstance(self.noise, OrnsteinUhlenbeckNoise) or self.persistence is not None

    def initial_carry(self, n_envs: int) -> ExploringCarry:
        """Return the carry before any step."""
        carry = ExploringCarry(
            self.policy.initial_carry(n_envs), self.noise.initial((n_envs, self.policy.actions.size))
        )
        if self.persistence is None:
            return carry
        noise = jax.eval_shape(lambda: self._of_step(jax.random.PRNGKey(0), n_envs))
        return carry._replace(kept=self.persistence.initial({name: noise[name] for name in LASTING if name in noise}))

    def begin_rollout(self, carry: ExploringCarry) -> ExploringCarry:
        """Return the carry at the beginning of a round: gSDE that is renewed every so many steps goes on."""
        if self.policy.sde_sample_freq > 0:
            return carry
        return carry._replace(policy=self.policy.begin_rollout(carry.policy))

    def rollout_noise(self, keys: Array, n_envs: int) -> dict[str, Array]:
        """Draw all that a rollout's actions are made from."""
        return jax.vmap(lambda key: self._of_step(key, n_envs))(keys)

    def _of_step(self, key: Array, n_envs: int) -> dict[str, Array]:
        shape = n_envs, self.policy.actions.size
        own, uniform, normal = jax.random.split(key, 3)
        drawn = {
            "policy": self.policy.noise(own, n_envs),
            "uniform": jax.random.uniform(uniform, shape, jnp.float32, -1.0, 1.0),
        }
        if not isinstance(self.noise, NoNoise):
            drawn["normal"] = jax.random.normal(normal, shape, jnp.float32)
        if self.persistence is not None:
            drawn["steps"] = jax.random.uniform(jax.random.fold_in(key, 3), (n_envs,), jnp.float32)
        return drawn

    def act(
        self, acting: Acting, observation: Any, carry: ExploringCarry, episode_start: Array, mask: Any, noise: Any
    ) -> Acted:
        """Return the actions given to the environments."""
        codec, kept_noise = self.policy.actions, carry.kept
        if self.persistence is not None:
            drawn = {name: noise[name] for name in carry.kept[0]}
            lasting, kept_noise = self.persistence.kept(carry.kept, drawn, episode_start, noise["steps"])
            noise = {**noise, **lasting}
        own, inside = self.policy.act(
            acting.parameters, acting.moments, observation, carry.policy, episode_start, None, noise["policy"]
        )
        unit = codec.to_unit(own, jnp)
        moved, memory = self.noise.add(unit, carry.noise, episode_start, noise.get("normal", unit), acting.remaining)
        unit = jnp.clip(moved, -1.0, 1.0)
        unit = jnp.where(acting.steps < self.random_steps, codec.uniform(noise["uniform"], jnp), unit)
        given = codec.from_unit(unit, jnp)
        kept = given.reshape(unit.shape).astype(jnp.float32)
        return Acted(kept, given, ExploringCarry(inside, memory, kept_noise))
