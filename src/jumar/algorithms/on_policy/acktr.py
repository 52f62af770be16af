"""ACKTR: score . mean KL, Kronecker-factored . a natural step within a trust region, for actor and critic each."""

from __future__ import annotations

import dataclasses

from jumar import solvers
from jumar.algorithms.on_policy.parts import compose, has_critic, judge, one_row_in
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.settings import OnPolicySettings
from jumar.errors import UsageError
from jumar.policies.policy import Policy
from jumar.schedules import Linear, Schedule
from jumar.settings import setting
from jumar.solvers import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class ACKTRSettings(OnPolicySettings):
    """Settings of ACKTR; the defaults are Stable-Baselines2's, where it has the setting."""

    learning_rate: Schedule = setting(
        Linear(0.25), "largest step of actor and critic, as a multiple of the natural gradient", above=0, at_most=100
    )
    n_steps: int = setting(20, "steps of each environment per iteration", unit="steps", at_least=1)
    gae_lambda: float = setting(
        1.0, "lambda of generalized advantage estimation; 1: returns of up to n_steps", at_least=0, at_most=1
    )
    normalize_advantage: bool = setting(False, "standardise the advantages of each rollout")
    ent_coef: float = setting(0.01, "weight of the entropy bonus", at_least=0)
    target_kl: float = setting(0.001, "largest mean KL(old || new) of a step", unit="nats", above=0)
    momentum: float = setting(0.9, "weight of the past in the running mean of steps", at_least=0, below=1)
    kfac_damping: float = setting(0.01, "added to the diagonal of the Fisher matrix", above=0)
    kfac_decay: float = setting(
        0.99, "largest weight of the past in the running means of the Kronecker factors", at_least=0, below=1
    )
    kfac_update: int = setting(10, "updates between inversions of the Kronecker factors", unit="updates", at_least=1)
    sub_sampling_factor: int = setting(1, "estimate the Fisher matrices from one row in this many", at_least=1)


def acktr(settings: ACKTRSettings, policy: Policy) -> OnPolicy:
    r"""Actor-critic using Kronecker-factored trust regions (Wu et al. 2017) as a choice of parts.

    Actor and critic take one step each along their Kronecker-factored natural gradient ``x``, of the lengths

    .. math::
        \eta_{actor} = \min(\eta_{max}, \sqrt{2 \delta / x^T F x}), \qquad
        \eta_{critic} = \min(\eta_{max}, g^T x / x^T F x)

    with the exact Fisher matrix ``F`` of the rollout, and move by the running mean of their steps. The critic's is that of a
    normal of unit deviation around the critic's value, the Gauss-Newton matrix.

    Raises:
        UsageError: another value loss than the squared error, whose Gauss-Newton matrix that is; or an encoder of the user's,
            whose layers are not known; or rows left out of sequences.
    """
    if policy.encoder.own is not None:
        raise UsageError(
            f"acktr needs to know every layer, and not those of encoder {policy.encoder.own.name}; take a2c or trpo."
        )
    if settings.value_loss != "squared":
        raise UsageError(
            f"value_loss={settings.value_loss} has no part in acktr: its critic's natural step is that of the squared error; "
            "leave value_loss at squared."
        )
    every = one_row_in(settings.sub_sampling_factor, policy)
    geometry = solvers.Kronecker(settings.kfac_damping, settings.kfac_decay, settings.kfac_update, every)

    def mover(bound: solvers.Length) -> solvers.Momentum:
        length = solvers.Shorter(solvers.Rate(settings.learning_rate), bound)
        return solvers.Momentum(solvers.Step(geometry, length), settings.momentum)

    actor = mover(solvers.Boundary(settings.target_kl))
    fit = solvers.Regression(judge(settings, policy).evaluate, mover(solvers.Top()))
    solver = solvers.Separate(actor, fit) if has_critic(settings) else solvers.PolicyAlone(actor)
    return compose(settings, policy, objectives.Score(), solver)
