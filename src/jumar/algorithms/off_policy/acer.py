"""ACER: truncated score of a replayed sequence . distance from an average policy . a projected step of ascent."""

from __future__ import annotations

import dataclasses

import optax

from jumar import solvers
from jumar.algorithms.off_policy.acer_update import Replay
from jumar.algorithms.on_policy.parts import price, reward_transform
from jumar.algorithms.settings import RolloutSettings
from jumar.critics.state_values import make_action_value_critic
from jumar.errors import UsageError
from jumar.experience.rollouts import Recent
from jumar.policies.policy import Policy
from jumar.schedules import Constant, Schedule
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ACERSettings(RolloutSettings):
    """Settings of ACER; the defaults are those of OpenAI Baselines, except that the learning rate is constant."""

    learning_rate: Schedule = setting(Constant(7e-4), "learning rate of RMSprop", above=0, at_most=100)
    n_steps: int = setting(20, "steps of each environment per iteration", unit="steps", at_least=1)
    ent_coef: float = setting(0.01, "weight of the entropy bonus", at_least=0)
    q_coef: float = setting(0.5, "weight of the critic's loss, which is half the squared error", at_least=0)
    max_grad_norm: float | None = setting(10.0, "scale the joint gradient down to this norm; none: do not", above=0)
    rms_prop_eps: float = setting(1e-5, "epsilon of RMSprop", above=0, at_most=1)
    replay_ratio: int = setting(4, "replays per iteration, one optimiser step each", at_least=0, at_most=100_000)
    replay_start: int = setting(10_000, "steps in the buffer before the first replay", unit="steps", at_least=0)
    buffer_size: int = setting(
        50_000, "size of the replay buffer, for all environments together, in whole rollouts", unit="steps", at_least=1
    )
    importance_bound: float = setting(
        10.0, "c: importance ratios are truncated here; the critic's values correct for what is cut off", above=0
    )
    retrace_lambda: float = setting(1.0, "lambda of Retrace", at_least=0, at_most=1)
    trust_region: bool = setting(True, "project gradients so that they do not lead away from the average policy")
    trust_region_delta: float = setting(
        1.0, "largest growth of the divergence from the average policy along a row's gradient", unit="nats", above=0
    )
    average_decay: float = setting(
        0.99, "share of its parameters that the average policy keeps at each optimiser step", at_least=0, below=1
    )


def acer(settings: ACERSettings, policy: Policy) -> Replay:
    r"""Actor-critic with experience replay (Wang et al. 2017), for Discrete actions, as a choice of parts.

    An actor and a critic of action values improve on the new rollout, then ``replay_ratio`` times on sequences drawn from the
    remembered ones: :class:`jumar.algorithms.off_policy.acer_update.Replay`.

    Raises:
        UsageError: the action space is not Discrete, or the memory is too small for one rollout, or for ``replay_start``.
    """
    if policy.actions.kind != "discrete":
        raise UsageError(
            "acer needs a Discrete action space: its critic has a value for each action; "
            "ispg learns from earlier rollouts in any action space."
        )
    rollout = settings.n_envs * settings.n_steps
    if settings.buffer_size < rollout:
        raise UsageError(
            f"buffer_size={settings.buffer_size} has no room for a rollout of n_envs * n_steps = {settings.n_envs} * "
            f"{settings.n_steps} = {rollout} steps; it must be at least that."
        )
    remembered = settings.buffer_size // rollout * rollout
    if settings.replay_ratio > 0 and settings.replay_start > remembered:
        raise UsageError(
            f"replay_start={settings.replay_start}, but the memory holds whole rollouts, {remembered} steps, so nothing would "
            "ever be replayed; lower it, or raise buffer_size."
        )
    scaling = optax.scale_by_rms(decay=0.99, eps=settings.rms_prop_eps, eps_in_sqrt=False)
    ascent = solvers.Ascent(solvers.Optimiser(settings.learning_rate, scaling, settings.max_grad_norm))
    solver: solvers.Solver = solvers.Joint(ascent, settings.q_coef)
    if settings.trust_region:
        solver = solvers.AverageTrustRegion(solver, settings.trust_region_delta, settings.average_decay)
    return Replay(
        policy=policy,
        critic=make_action_value_critic(policy.encoder, settings, policy.actions.choices[0]),
        rewards=reward_transform(settings),
        remembers=Recent(settings.buffer_size // rollout, settings.n_steps),
        solver=solver,
        gamma=settings.gamma,
        retrace_lambda=settings.retrace_lambda,
        bound=settings.importance_bound,
        ent_coef=settings.ent_coef,
        replay_ratio=settings.replay_ratio,
        replay_start=settings.replay_start,
        costs=price(settings),
    )
