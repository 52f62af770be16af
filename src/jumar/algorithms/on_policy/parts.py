"""From settings that several methods share to the parts that they stand for."""

from __future__ import annotations

import optax

from jumar import estimators, solvers
from jumar.algorithms.on_policy.costs import CostPenalty, Costs, CostsIgnored
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.on_policy.valuations import ActionValues, StateValues
from jumar.algorithms.settings import CriticFitSettings, NaturalSettings, OnPolicySettings, RolloutSettings
from jumar.critics.sharing import Unshared, share_trunk
from jumar.critics.state_values import Critic, NoCritic, make_critic, make_taken_action_critic
from jumar.errors import UsageError
from jumar.experience.rewards import NormalisedRewards, RawRewards, RewardTransform
from jumar.policies.policy import Policy
from jumar.schedules import Schedule
from jumar.solvers import objectives
from jumar.solvers.problem import Divergence, kl, kl_of_actions, log_ratio_of_actions, reverse_kl
from jumar.trajectory import centred, standardise, unscaled


def compose(
    settings: OnPolicySettings,
    policy: Policy,
    objective: objectives.PolicyObjective,
    solver: solvers.Solver,
    value_loss: objectives.ValueLoss | None = None,
    divergence: Divergence = kl,
    share_features_extractor: bool = False,
) -> OnPolicy:
    """Put an update together of what a method chooses, and of what the settings say of the rest.

    The value loss is what the settings say, unless another is given. With ``share_features_extractor`` policy and critic
    have one convolutional network for each image.

    Raises:
        UsageError: the settings do not go together.
    """
    scale = centred if settings.baseline == "mean" else unscaled
    critic = judge(settings, policy)
    critic, sharing = share_trunk(policy, critic) if share_features_extractor else (critic, Unshared())
    return OnPolicy(
        policy=policy,
        critic=critic,
        rewards=reward_transform(settings),
        estimator=estimator(settings),
        scale_advantages=standardise if settings.normalize_advantage else scale,
        objective=objective,
        ent_coef=settings.ent_coef,
        value_loss=value_loss or plain_value_loss(settings),
        solver=solver,
        divergence=divergence,
        costs=price(settings),
        sharing=sharing,
        valuation=ActionValues() if settings.advantage == "q" else StateValues(),
    )


def judge(settings: OnPolicySettings, policy: Policy) -> Critic:
    """Return the critic that advantages are made by: one of states, one of actions, or none.

    Raises:
        UsageError: values of actions that are not Discrete.
    """
    if settings.advantage != "q":
        return make_critic(policy.encoder, settings) if has_critic(settings) else NoCritic()
    if policy.actions.kind != "discrete":
        raise UsageError(
            "advantage=q needs a Discrete action space: its critic has a value for each action; choose advantage gae."
        )
    return make_taken_action_critic(policy.encoder, settings, policy.actions.choices[0])


def reward_transform(settings: RolloutSettings) -> RewardTransform:
    """Return what makes of raw rewards those that are learnt from."""
    return NormalisedRewards(settings.gamma, settings.clip_rewards) if settings.normalize_rewards else RawRewards()


def price(settings: RolloutSettings) -> Costs:
    """Return what becomes of costs: they are taken off the rewards, or ignored."""
    return CostPenalty(settings.cost_coef) if settings.cost_coef > 0.0 else CostsIgnored()


def plain_value_loss(settings: OnPolicySettings) -> objectives.ValueLoss:
    """Return what the critic makes small, without a limit on its change."""
    return objectives.Huber(settings.huber_delta) if settings.value_loss == "huber" else objectives.SquaredError()


def clipped_value_loss(settings: OnPolicySettings, clip_range: Schedule) -> objectives.ValueLoss:
    """Return what the critic makes small, where its change is clipped."""
    if settings.value_loss == "huber":
        return objectives.ClippedHuber(clip_range, settings.huber_delta)
    return objectives.ClippedSquaredError(clip_range)


def has_critic(settings: OnPolicySettings) -> bool:
    """Return whether there is a critic: for the baseline, or for the values of actions."""
    return settings.advantage == "q" or has_critic_baseline(settings)


def has_critic_baseline(settings: OnPolicySettings) -> bool:
    """Return whether the baseline is a critic's value."""
    return settings.baseline in ("critic", "independent")


def estimator(settings: OnPolicySettings) -> estimators.Estimator:
    """Return what makes advantages and value targets.

    Raises:
        UsageError: advantages that stop at a critic's value, without a critic.
    """
    if settings.advantage in ("gae", "n-step") and not has_critic(settings):
        raise UsageError(
            f"advantage={settings.advantage} needs a critic, and baseline={settings.baseline} has none; choose advantage to-go "
            "or return."
        )
    chosen: estimators.Estimator = {
        "gae": estimators.GAE(settings.gamma, settings.gae_lambda),
        "n-step": estimators.NStep(settings.gamma, settings.advantage_steps),
        "to-go": estimators.RewardToGo(settings.gamma),
        "return": estimators.FullReturn(settings.gamma),
        "q": estimators.ExpectedSarsa(settings.gamma, has_critic_baseline(settings)),
    }[settings.advantage]
    return completed(settings, chosen)


def completed(settings: OnPolicySettings, chosen: estimators.Estimator) -> estimators.Estimator:
    """Return an estimator with what the settings say of baselines of time, the ends of episodes and the weights of states.

    Whole returns carry their discounts already: with them all states weigh the same.
    """
    if not has_critic(settings):
        chosen = estimators.Finished(chosen)
    if settings.baseline == "time":
        chosen = estimators.TimeBaseline(chosen)
    if not settings.bootstrap_truncated:
        chosen = estimators.LimitsAsEnds(chosen)
    discounted = settings.discount_states and settings.advantage != "return"
    return estimators.DiscountedStates(chosen, settings.gamma) if discounted else chosen


def apart(
    settings: CriticFitSettings, policy: Policy, mover: solvers.PolicySolver, critic_rate: Schedule | None = None
) -> solvers.Solver:
    """Return the solver that moves the policy by ``mover`` and fits the critic, if there is one, by itself.

    Args:
        settings: those of the method; their ``learning_rate`` is the critic's unless ``critic_rate`` is given.
        policy: the policy.
        mover: what moves it.
        critic_rate: the critic's learning rate.

    Raises:
        UsageError: ``batch_size`` does not divide the rollout, or one environment is to be divided in two halves.
    """
    if not has_critic(settings):
        return solvers.PolicyAlone(mover)
    scaling = optax.scale_by_adam(eps=settings.adam_epsilon)
    optimiser = solvers.Optimiser(critic_rate or settings.learning_rate, scaling)
    minibatches = count_minibatches(settings, settings.batch_size, policy.recurrent)
    fit = solvers.Epochs(optimiser, settings.n_critic_updates, minibatches)
    if settings.baseline != "independent":
        return solvers.Separate(mover, fit)
    if settings.n_envs < 2:
        raise UsageError(
            "baseline=independent divides the environments in two halves, and n_envs=1; choose at least 2."
        )
    return solvers.Independent(mover, fit, settings.n_envs)


def one_row_in(sub_sampling_factor: int, policy: Policy) -> int:
    """Return the factor. Raises ``UsageError`` where rows cannot be left out, as those of a recurrent policy are sequences."""
    if sub_sampling_factor > 1 and policy.recurrent:
        raise UsageError(
            f"sub_sampling_factor={sub_sampling_factor} leaves rows out, and a recurrent policy needs all rows of a sequence; "
            "leave it at 1."
        )
    return sub_sampling_factor


def geometry(settings: NaturalSettings, policy: Policy, system: solvers.LinearSolver) -> solvers.Geometry:
    """Return the distance between the policies whose Fisher matrix the settings choose; ``system`` solves for the direction.

    Raises:
        UsageError: rows are to be left out of a Fisher matrix that is sampled, or of sequences.
    """
    if settings.fisher == "exact":
        return solvers.MeanKL(system, settings.cg_damping, one_row_in(settings.sub_sampling_factor, policy))
    if settings.sub_sampling_factor > 1:
        raise UsageError(
            f"sub_sampling_factor={settings.sub_sampling_factor} needs fisher=exact, and fisher={settings.fisher} takes all "
            "rows; leave it at 1."
        )
    if settings.fisher == "steps":
        return solvers.StepFisher(system, settings.cg_damping)
    return solvers.TrajectoryFisher(system, settings.n_envs, settings.cg_damping)


DIVERGENCES: dict[str, Divergence] = {
    "exact": kl,
    "reverse": reverse_kl,
    "sampled": kl_of_actions,
    "log-ratio": log_ratio_of_actions,
}
"""Divergences by the name that settings have for them."""


def scaling(optimizer: str, epsilon: float) -> optax.GradientTransformation:
    """Return how a gradient is scaled: ``adam``, or ``sgd`` for plain ascent."""
    return optax.scale_by_adam(eps=epsilon) if optimizer == "adam" else optax.identity()


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
