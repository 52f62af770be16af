"""The parts that settings shared by several methods stand for."""

from __future__ import annotations

import optax

from jumar import estimators, solvers
from jumar.algorithms.settings import CriticFitSettings, OnPolicySettings
from jumar.errors import UsageError
from jumar.normalise import NormalisedRewards, RawRewards, RewardTransform
from jumar.policies import Policy


def reward_transform(settings: OnPolicySettings) -> RewardTransform:
    """Return what is done to rewards before they are learnt from."""
    return NormalisedRewards(settings.gamma, settings.clip_rewards) if settings.normalize_rewards else RawRewards()


def with_time_limits(settings: OnPolicySettings, estimator: estimators.Estimator) -> estimators.Estimator:
    """Return the estimator with time limits treated as the settings say."""
    return estimator if settings.bootstrap_truncated else estimators.LimitsAsEnds(estimator)


def critic_fit(settings: CriticFitSettings, policy: Policy) -> solvers.Epochs:
    """Return the passes of minibatch Adam that fit a critic by itself."""
    optimiser = solvers.Optimiser(settings.learning_rate, optax.scale_by_adam(eps=settings.adam_epsilon))
    return solvers.Epochs(
        optimiser, settings.n_critic_updates, count_minibatches(settings, settings.batch_size, policy.recurrent)
    )


def count_minibatches(settings: OnPolicySettings, size: int, recurrent: bool) -> int:
    """Return how many minibatches of ``size`` steps a rollout has.

    Raises:
        UsageError: the size does not divide it; for a recurrent policy: is not made of whole sequences.
    """
    rollout = settings.n_envs * settings.n_steps
    unit = settings.n_steps if recurrent else 1
    if size % unit == 0 and rollout % size == 0:
        return rollout // size
    fitting = [n for n in range(unit, rollout + 1, unit) if rollout % n == 0]
    nearest = min(fitting, key=lambda n: abs(n - size))
    why = "whole sequences of n_steps, and it must divide" if recurrent else "a divisor of"
    raise UsageError(
        f"batch_size={size} does not fit: it must be {why} n_envs * n_steps = {settings.n_envs} * {settings.n_steps} "
        f"= {rollout}; the nearest that fits is {nearest}."
    )
