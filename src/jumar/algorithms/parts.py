"""The parts that settings shared by several methods stand for."""

from __future__ import annotations

import optax

from jumar import estimators, objectives, solvers
from jumar.algorithms.on_policy import OnPolicy
from jumar.algorithms.settings import ActorCriticSettings, CriticFitSettings, OnPolicySettings
from jumar.critics import Critic
from jumar.errors import UsageError
from jumar.normalise import NormalisedRewards, RawRewards
from jumar.policies import Policy
from jumar.trajectory import standardise, unscaled


def actor_critic(
    settings: ActorCriticSettings,
    policy: Policy,
    critic: Critic,
    objective: objectives.PolicyObjective,
    solver: solvers.Solver,
    value_loss: objectives.ValueLoss | None = None,
) -> OnPolicy:
    """Put an update together of what a method chooses, and of what the settings say of the rest.

    Advantages and value targets are by GAE; the value loss is the squared error unless another is given.
    """
    gae = estimators.GAE(settings.gamma, settings.gae_lambda)
    return OnPolicy(
        policy=policy,
        critic=critic,
        rewards=NormalisedRewards(settings.gamma, settings.clip_rewards)
        if settings.normalize_rewards
        else RawRewards(),
        estimator=gae if settings.bootstrap_truncated else estimators.LimitsAsEnds(gae),
        scale_advantages=standardise if settings.normalize_advantage else unscaled,
        objective=objective,
        ent_coef=settings.ent_coef,
        value_loss=value_loss or objectives.SquaredError(),
        solver=solver,
    )


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
