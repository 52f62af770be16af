"""From settings that off-policy methods share to the parts that they stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optax

from jumar.algorithms.off_policy.cadence import Cadence, parse_train_freq
from jumar.algorithms.off_policy.improvements import Improvement
from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.algorithms.off_policy.state_values import StateValue
from jumar.algorithms.off_policy.temperature import FixedTemperature, Temperature
from jumar.algorithms.off_policy.update import OffPolicy, Optimisers
from jumar.critics.encodings import Histogram, Number
from jumar.critics.ensemble import Ensemble, Layers, Least
from jumar.errors import UsageError
from jumar.experience.replay import Replay
from jumar.experience.rewards import NormalisedRewards, RawRewards
from jumar.policies.exploration import Exploring, ExploringChoices, Persistence, parse_noise
from jumar.policies.policy import Policy, make_critic_torso
from jumar.settings import as_typed
from jumar.solvers.ascent import Optimiser


def compose(
    settings: ReplaySettings,
    policy: Policy,
    successor: StateValue,
    improvement: Improvement,
    temperature: Temperature | None = None,
) -> OffPolicy:
    """Put an update together of what a method chooses, and of what the settings say of the rest.

    Args:
        settings: those of the method.
        policy: the policy; actions in a Box are squashed.
        successor: what the successor is worth in a target.
        improvement: how the policy improves.
        temperature: what entropy is worth; by default nothing.

    Raises:
        UsageError: the settings do not go together, or the policy does not squash its actions.
    """
    check(settings, policy)
    train_freq, by_episodes = parse_train_freq(settings.train_freq)
    slots = max(1, settings.buffer_size // settings.n_envs)
    block, hindsight = settings.rounds * settings.rows_per_round, settings.hindsight
    optimiser = Optimiser(settings.learning_rate, optax.scale_by_adam(eps=settings.adam_epsilon))
    return OffPolicy(
        policy=policy,
        critic=ensemble(settings, policy),
        behaviour=behaviour(settings, policy),
        replay=Replay(
            encoder=policy.encoder,
            action_size=policy.actions.size,
            slots=slots,
            n_envs=settings.n_envs,
            block=block,
            n_steps=settings.n_steps,
            gamma=settings.gamma,
            masks=policy.actions.mask_size or 0,
            aligned=hindsight is None,
            relabelled=0 if hindsight is None else hindsight.slots(block),
        ),
        rewards=NormalisedRewards(settings.gamma, settings.clip_rewards)
        if settings.normalize_rewards
        else RawRewards(),
        cost_coef=settings.cost_coef,
        cadence=Cadence(
            settings.learning_starts,
            train_freq,
            by_episodes,
            settings.gradient_steps,
            settings.policy_delay,
            settings.target_update_interval,
        ),
        batch_size=settings.batch_size,
        successor=successor,
        improvement=improvement,
        temperature=temperature or FixedTemperature(0.0),
        tau=settings.tau,
        optimisers=Optimisers(optimiser, optimiser, optimiser),
        target_network=settings.target_network,
        jointly=settings.critic_batch_norm and not settings.target_network,
        hindsight=hindsight,
    )


def behaviour(settings: ReplaySettings, policy: Policy) -> Exploring | ExploringChoices:
    """Return what acts.

    Raises:
        UsageError: noise is to be added to Discrete actions, or kept for them.
    """
    noise = parse_noise(settings.action_noise)
    if policy.actions.kind == "box":
        persistence = Persistence(settings.noise_repeat) if settings.noise_repeat > 1 else None
        return Exploring(policy, noise, settings.learning_starts, persistence)
    if settings.noise_repeat > 1:
        raise UsageError(f"noise_repeat={settings.noise_repeat} needs a Box action space; leave it out.")
    if settings.action_noise is not None:
        raise UsageError(
            f"action_noise={settings.action_noise} needs a Box action space; Discrete actions are drawn, so leave it out."
        )
    return ExploringChoices(policy, settings.learning_starts)


def least(settings: ReplaySettings) -> Least:
    """Return the part that takes the least of the critics, or of a subset."""
    return Least(settings.n_critics_subset)


def ensemble(settings: ReplaySettings, policy: Policy) -> Ensemble:
    """Return the critics of a method."""
    encoder = policy.encoder
    torso = make_critic_torso(encoder, settings)
    joiner = replace(torso, sizes=(), recurrent=None)
    between = Layers(torso.activation, settings.critic_dropout, settings.critic_layer_norm, settings.critic_batch_norm)
    discrete = policy.actions.kind == "discrete"
    inputs, outputs = (0, policy.actions.units) if discrete else (policy.actions.size, 0)
    encoding = Histogram(settings.critic_bins, settings.critic_limit) if settings.critic_bins else Number()
    return Ensemble(joiner, inputs, torso.sizes, between, settings.n_critics, settings.initialiser, outputs, encoding)


OF_LARGEST_ENTROPY = 0.7
"""The share of the largest entropy that Discrete actions keep; near 1 the temperature grows without end."""


def share_of_largest_entropy(given: float | str, policy: Policy) -> float:
    """Return which share of the largest entropy :func:`target_entropy` is; 0 where it does not depend on that."""
    return OF_LARGEST_ENTROPY if policy.actions.kind == "discrete" and given == "auto" else 0.0


def target_entropy(given: float | str, policy: Policy) -> float:
    r"""Return the entropy that the temperature keeps, in nats, in a Box those of the density in the environment's units.

    ``auto`` is -d in units of half of the actions' range, ``-d/2`` half of it; the density in the environment's units has
    :math:`\sum_i \log h_i` more, with the halves of the ranges :math:`h_i`. Of n Discrete actions ``auto`` is
    :math:`0.7 \log n`.

    Raises:
        UsageError: it is neither, nor a number that can be reached.
    """
    codec = policy.actions
    if codec.kind == "discrete":
        shift, named = 0.0, {"auto": OF_LARGEST_ENTROPY * math.log(codec.choices[0])}
    else:
        shift = sum(math.log(h) for h in codec.half_range)
        named = {"auto": -float(codec.size), "-d": -float(codec.size), "-d/2": -codec.size / 2}
    if given in named:
        return named[str(given)] + shift
    try:
        number = float(given)
    except ValueError:
        raise UsageError(
            f"target_entropy={given} is not an entropy; write {', '.join(named)} or a number of nats."
        ) from None
    if not math.isfinite(number):
        raise UsageError(f"target_entropy={given} is out of range; it must be finite.")
    if codec.kind == "discrete" and number >= (largest := math.log(codec.choices[0])):
        raise UsageError(
            f"target_entropy={given} is out of range; of {codec.choices[0]} actions it must be below their largest entropy, "
            f"{largest:.3g} nats."
        )
    return number + shift


PLAIN: Mapping[str, Any] = {
    "critic_layer_norm": False,
    "critic_batch_norm": False,
    "critic_dropout": 0.0,
    "critic_bins": 0,
}
"""The settings by which nothing but the activation lies between a critic's layers, and its output is the value."""


def require(settings: ReplaySettings, values: Mapping[str, Any], why: str) -> None:
    """Refuse settings that a method's critics cannot follow.

    Args:
        settings: those of the method.
        values: the values that they must have, by name: their defaults.
        why: why, as the middle of a sentence: ``there is one compatible critic``.

    Raises:
        UsageError: one has another value.
    """
    for name, value in values.items():
        if (given := getattr(settings, name)) != value:
            raise UsageError(f"{name}={as_typed(given)}: {why}; leave it out.")


def check(settings: ReplaySettings, policy: Policy) -> None:
    """Refuse what off-policy methods cannot learn from, or settings that do not go together.

    Raises:
        UsageError: the message says what would be right.
    """
    if policy.actions.kind == "box" and not policy.actions.squash:
        raise UsageError("squash=false: actions of this method are always squashed into their bounds; leave it true.")
    if policy.recurrent:
        raise UsageError(f"recurrent={settings.recurrent}: this method has no memory; ppo takes recurrent policies.")
    if settings.critic_time != "none":
        raise UsageError(
            f"critic_time={settings.critic_time}: the critics of this method do not see the time; leave it none."
        )
    if settings.gradient_steps == 0:
        raise UsageError("gradient_steps=0 learns nothing; it must be at least 1, or -1 for one per step.")
    if settings.batch_size > settings.buffer_size:
        raise UsageError(
            f"batch_size={settings.batch_size} is more than the memory holds, buffer_size={settings.buffer_size}; make one of "
            "them fit."
        )
    if settings.hindsight is not None and settings.n_steps > 1:
        raise UsageError(
            f"n_steps={settings.n_steps}: with goal_selection_strategy targets have one reward, because the steps after a "
            "relabelled one are desired to reach other goals; leave n_steps at 1."
        )
    if settings.use_sde and settings.noise_repeat > 1:
        raise UsageError(
            f"noise_repeat={settings.noise_repeat} does not go with use_sde, whose noise lasts for sde_sample_freq steps; "
            "leave one of them out."
        )
    if settings.critic_bins == 1:
        raise UsageError("critic_bins=1 cannot tell values apart; 0 is none, and some hundred are usual.")
    subset = settings.n_critics_subset
    if subset is not None and subset > settings.n_critics:
        raise UsageError(
            f"n_critics_subset={subset} is more than n_critics={settings.n_critics}; it must be at most that."
        )
    if parse_train_freq(settings.train_freq)[1] and settings.n_envs > 1:
        raise UsageError(
            f"train_freq={settings.train_freq} counts episodes, which needs n_envs=1, not {settings.n_envs}; count steps."
        )
