r"""The off-policy update: one function for the whole family, which takes parts and no flags.

A round of experience comes in. Then, as often as is due, rows are drawn from the memory, the critics regress on a target,

.. math::
    y = R + d \, \Big(\min_k Q_{\bar\phi_k}(s', a') - \alpha \log \pi(a'|s')\Big), \qquad
    L(\phi) = \tfrac12 \sum_k E[(Q_{\phi_k}(s, a) - y)^2]

(or the cross-entropy of distributions, :mod:`jumar.critics.encodings`), the policy improves, most often by climbing
:math:`E[Q_\phi(s, a_\theta(s)) - \alpha \log \pi_\theta(a_\theta|s)]`, the temperature :math:`\alpha` follows the policy's
entropy, and targets follow slowly. What a successor is worth, how the policy improves, which critics are asked, and what
moves how often are parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.off_policy.cadence import Cadence, Clock
from jumar.algorithms.off_policy.improvements import Given, Improvement, Rows, norm
from jumar.algorithms.off_policy.overestimation import Overestimation
from jumar.algorithms.off_policy.state_values import (
    Critics,
    FixedCritics,
    JointCritics,
    States,
    StateValue,
    Valued,
    entropy_part,
)
from jumar.algorithms.off_policy.symptoms import symptoms
from jumar.algorithms.off_policy.temperature import Entropies, Temperature
from jumar.algorithms.on_policy.costs import CostPenalty
from jumar.algorithms.update import all_finite
from jumar.critics.ensemble import ActionValues
from jumar.critics.targets import polyak
from jumar.errors import UsageError
from jumar.experience.hindsight import Hindsight
from jumar.experience.replay import ABSENT, Arrays, Fresh, Replay, Transitions
from jumar.experience.rewards import RewardTransform
from jumar.policies.exploration import Acting, Behaviour
from jumar.policies.moments import RunningMoments
from jumar.policies.policy import Policy
from jumar.solvers.ascent import Optimiser
from jumar.solvers.problem import Diagnostics, Parameters
from jumar.text import counted
from jumar.trajectory import Trajectory, weighted_mean

Fit = Callable[[Parameters], tuple[Array, Array, Any]]
"""(parameters of the critics) -> (what they say of the rows ``[n, B, m]``, targets ``[B]``, their statistics after it)."""


class Optimisers(NamedTuple):
    """How gradients become steps, apart for each group of parameters."""

    policy: Optimiser
    critic: Optimiser
    temperature: Optimiser


class Learner(NamedTuple):
    """All that off-policy learning changes, but the memory: one pytree."""

    parameters: Parameters
    """``{"policy": ..., "critic": ..., "target": {...}, "temperature": ...}``."""
    solver: Any
    """The optimisers' states, ``{"policy": ..., "critic": ..., "temperature": ...}``."""
    observation_moments: RunningMoments
    """The observation normaliser, which belongs to the policy. The memory holds raw observations."""
    reward_scale: Any
    """The state of what transforms rewards. The memory holds raw rewards."""
    statistics: Any
    """What of the critics no gradient moves."""
    target_statistics: Any
    """The same of the target critics; ``()`` without any."""
    judged: Any
    """What the critics said of the episodes under way, and what came of them."""
    clock: Any
    """What is counted: steps, updates, and where the memory is written to. The same for all seeds of a program."""


class Sums(NamedTuple):
    """What the updates of an iteration said of themselves, summed up."""

    critic: Diagnostics
    """Over all updates."""
    actor: Diagnostics
    """Over those in which the policy moved."""
    critics: Array
    """How many updates there were, float32."""
    actors: Array


class Round(NamedTuple):
    """What an iteration has made so far, beside the learner."""

    slots: Fresh
    sums: Sums


@dataclass(frozen=True)
class OffPolicy:
    """A method of the off-policy family: a choice of parts."""

    policy: Policy
    critic: ActionValues
    behaviour: Behaviour
    replay: Replay
    rewards: RewardTransform
    cost_coef: float
    """Price per unit of cost, subtracted from the reward."""
    cadence: Cadence
    """When there are updates, and how many; when policy and targets move."""
    batch_size: int
    successor: StateValue
    """What the successor is worth in a target."""
    improvement: Improvement
    """How the policy improves."""
    temperature: Temperature
    tau: float
    """How far targets move: 1 copies."""
    optimisers: Optimisers
    target_network: bool = True
    """Whether targets are those of critics that follow slowly; without them they are those of the critics themselves."""
    jointly: bool = False
    """Whether critics see each row and its successor in one batch, which batch normalisation without targets needs."""
    hindsight: Hindsight | None = None
    """What is remembered beside each step: the step with other goals; ``None``: nothing."""

    @property
    def needs_cost(self) -> bool:
        """Whether each step must come with one cost."""
        return self.cost_coef > 0.0

    # -- the learner ------------------------------------------------------------------------------------------------

    def init(self, key: Array, n_envs: int) -> Learner:
        """Draw a learner's first state."""
        first, second = jax.random.split(key)
        parameters = {"policy": self.policy.init(first), "critic": self.critic.init(second)}
        parameters |= {"temperature": self.temperature.init()}
        learner = Learner(
            parameters=parameters,
            solver=(),
            observation_moments=self.policy.encoder.initial_moments(),
            reward_scale=self.rewards.init(n_envs),
            statistics=(),
            target_statistics=(),
            judged=Overestimation.start(n_envs),
            clock=Clock.start(),
        )
        return self.begin_with(learner, parameters)

    def begin_with(self, learner: Learner, parameters: Parameters) -> Learner:
        """Return a first learner with other parameters in its place; targets and optimisers begin with them."""
        groups = {name: parameters[name] for name in ("policy", "critic", "temperature")}
        followed = ("policy",) * self.successor.follows + ("critic",) * self.target_network
        # Copies: what is donated to a program must not be there twice.
        target = {name: jax.tree.map(jnp.copy, groups[name]) for name in followed}
        solver = {name: getattr(self.optimisers, name).init(group) for name, group in groups.items()}
        statistics = self.critic.initial_statistics(groups["policy"])
        return learner._replace(
            parameters={**groups, "target": target},
            solver=solver,
            statistics=statistics,
            target_statistics=jax.tree.map(jnp.copy, statistics) if self.target_network else (),
        )

    def restart(self, learner: Learner) -> Learner:
        """Return the learner with all episodes begun anew (the environments were rebuilt); the memory stays."""
        return learner._replace(
            reward_scale=self.rewards.restart(learner.reward_scale),
            judged=Overestimation.start(learner.judged.weight.shape[0]),
        )

    @property
    def mapped(self) -> tuple[Learner, Round]:
        """Which parts of a learner and of a round differ between seeds: 0, or ``None`` for what is counted."""
        learner: Any = Learner(0, 0, 0, 0, 0, 0, 0, None)  # type: ignore[arg-type]
        made: Any = Round(Fresh(0, None), Sums(0, 0, None, None))  # type: ignore[arg-type]
        return learner, made

    def acting(self, learner: Learner, remaining: Array) -> Acting:
        """Return what the behaviour acts by."""
        return Acting(learner.parameters["policy"], learner.observation_moments, learner.clock.steps, remaining)

    # -- a round ----------------------------------------------------------------------------------------------------

    def begin(self) -> Round:
        """Return what an iteration has made before its first round."""
        return Round(self.replay.fresh(), self._no_sums())

    def update(
        self, learner: Learner, made: Round, memory: Arrays, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Learner, Round]:
        """Take in a round of experience, and learn from the memory as often as is due.

        Args:
            learner: whose policy acted.
            made: what the iteration has made so far.
            memory: what is remembered from before the iteration, which is only read.
            trajectory: what happened, its actions those that the environments were given.
            remaining: the share of training that is left, for schedules.
            key: for everything random.
        """
        slots = self.replay.add(made.slots, trajectory)
        clock, due = self.cadence.after(learner.clock, trajectory)
        encoder = self.policy.encoder
        if self.needs_cost and trajectory.costs is not None:  # an environment may give its first cost later
            trajectory = CostPenalty(self.cost_coef).penalised(trajectory)
        moments = learner.observation_moments
        if encoder.normalise and encoder.vector_size:
            moments = moments.updated(encoder.vector(trajectory.observations), trajectory.weights)
        learner = learner._replace(
            observation_moments=moments, reward_scale=self.rewards.learn(learner.reward_scale, trajectory), clock=clock
        )

        def once(i: Array, state: tuple[Learner, Sums]) -> tuple[Learner, Sums]:
            learner, sums = state
            learner, made = self.study(learner, Round(slots, sums), memory, remaining, jax.random.fold_in(key, i))
            return learner, made.sums

        learner, sums = jax.lax.fori_loop(0, due, once, (learner, made.sums))
        return learner, Round(slots, sums)

    def study(
        self, learner: Learner, made: Round, memory: Arrays, remaining: Array, key: Array
    ) -> tuple[Learner, Round]:
        """Do one update with rows drawn from what is remembered and from what the iteration has made."""
        draw_key, key_of_update = jax.random.split(key)
        cursor = learner.clock.cursor
        rows = self.replay.draw(
            memory, made.slots, cursor, self.batch_size, draw_key, lambda *x: self._worth(learner, *x)
        )
        learner, sums = self.improve(learner, made.sums, rows, remaining, key_of_update)
        return learner, made._replace(sums=sums)

    def improve(
        self, learner: Learner, sums: Sums, rows: Transitions, remaining: Array, key: Array
    ) -> tuple[Learner, Sums]:
        """Do one update with rows of the memory."""
        keys = jax.random.split(key, 6)
        here = self._states(learner, rows.observations, rows.masks)
        there = self._states(learner, rows.successors, rows.successor_masks)
        unit_of = self.policy.actions.unit_of
        actions = unit_of(rows.actions, jnp)
        if rows.next_actions is not None:
            there = there._replace(taken=unit_of(rows.next_actions, jnp))
        parameters, solver = dict(learner.parameters), dict(learner.solver)
        alpha = self.temperature.value(parameters["temperature"])
        regression = self._jointly if self.jointly else self._on_targets
        fit, encoding = regression(learner, here, there, actions, rows, keys), self.critic.encoding

        def loss_of(critic: Parameters) -> tuple[Array, tuple[Array, Array, Any]]:
            outputs, targets, statistics = fit(critic)
            losses = jax.vmap(lambda own: weighted_mean(encoding.loss(own, targets), rows.weights))(outputs)
            return jnp.sum(losses), (encoding.value(outputs), targets, statistics)

        (loss, told), gradient = jax.value_and_grad(loss_of, has_aux=True)(parameters["critic"])
        values, targets, statistics = told
        parameters["critic"], solver["critic"] = self.optimisers.critic.ascend(
            parameters["critic"], jax.tree.map(jnp.negative, gradient), solver["critic"], remaining
        )
        clock = learner.clock.updated()
        learner = learner._replace(parameters=parameters, solver=solver, statistics=statistics, clock=clock)
        about = {
            "critic_loss": loss,
            "q_mean": weighted_mean(jnp.mean(values, axis=0), rows.weights),
            "td_error": weighted_mean(jnp.mean(jnp.abs(values - targets), axis=0), rows.weights),
            "ent_coef": alpha,
            "grad_norm": norm(gradient),
        }

        def climbed(learner: Learner) -> tuple[Learner, Diagnostics]:
            return self._improve_policy(learner, here, Rows(actions, rows.weights), remaining, keys[3], keys[4])

        def resting(learner: Learner) -> tuple[Learner, Diagnostics]:
            return learner, dict.fromkeys(ACTOR, jnp.zeros((), jnp.float32))

        moves = self.cadence.actor_moves(clock)
        if self.cadence.policy_delay == 1:
            learner, about_actor = climbed(learner)
        else:
            learner, about_actor = jax.lax.cond(moves, climbed, resting, learner)
        learner = self._follow(learner)
        sums = Sums(
            jax.tree.map(jnp.add, sums.critic, about),
            jax.tree.map(jnp.add, sums.actor, about_actor),
            sums.critics + 1.0,
            sums.actors + moves,
        )
        return learner, sums

    def _states(self, learner: Learner, observations: Any, masks: Array | None) -> States:
        features = self.policy.encoder.encode(observations, learner.observation_moments)
        return States(features, masks, (jax.tree.leaves(features)[0].shape[0], self.policy.actions.units))

    def _on_targets(
        self, learner: Learner, here: States, there: States, actions: Array, rows: Transitions, keys: Array
    ) -> Fit:
        """Return the regression on targets that are known before it."""
        targets = rows.rewards + rows.discounts * self._successor_values(learner, there, keys[0], keys[1])
        targets = jax.lax.stop_gradient(targets)

        def fit(critic: Parameters) -> tuple[Array, Array, Any]:
            outputs, statistics = self.critic.outputs(critic, learner.statistics, here.features, actions, keys[2], True)
            return outputs, targets, statistics

        return fit

    def _jointly(
        self, learner: Learner, here: States, there: States, actions: Array, rows: Transitions, keys: Array
    ) -> Fit:
        """Return the regression in which rows and their successors are one batch to the critics.

        Source: Bhatt et al. 2024, *CrossQ*, section 3.
        """

        def fit(critic: Parameters) -> tuple[Array, Array, Any]:
            critics = JointCritics(self.critic, critic, learner.statistics, keys[2], here, actions, there)
            after = self._value_of(self.successor, learner, critics, keys[0], jax.random.split(keys[1])[1])
            targets = rows.rewards + rows.discounts * after.values
            return critics.of_rows, jax.lax.stop_gradient(targets), critics.statistics

        return fit

    def _value_of(
        self, value: StateValue, learner: Learner, critics: Critics, noise_key: Array, value_key: Array
    ) -> Valued:
        parameters = learner.parameters
        acting = parameters["target"]["policy"] if value.follows else parameters["policy"]
        noise = value.noise(noise_key, critics.states.action_shape)
        alpha = self.temperature.value(parameters["temperature"])
        return value(self.policy, acting, critics, alpha, noise, value_key)

    def _successor_values(self, learner: Learner, there: States, noise_key: Array, value_key: Array) -> Array:
        """Return what successors are worth in targets, ``[B]``."""
        group, statistics = learner.parameters, learner.statistics
        if self.target_network:
            group, statistics = group["target"], learner.target_statistics
        first, second = jax.random.split(value_key)
        critics = FixedCritics(self.critic, group["critic"], statistics, there, first)
        return self._value_of(self.successor, learner, critics, noise_key, second).values

    def _improve_policy(
        self, learner: Learner, here: States, rows: Rows, remaining: Array, noise_key: Array, value_key: Array
    ) -> tuple[Learner, Diagnostics]:
        """Improve the policy by the critics, and move the temperature after it."""
        parameters, solver = dict(learner.parameters), dict(learner.solver)
        alpha = self.temperature.value(parameters["temperature"])
        first, second = jax.random.split(value_key)
        critics = FixedCritics(self.critic, parameters["critic"], learner.statistics, here, first)
        given = Given(self.policy, self.optimisers.policy, critics, rows, alpha, remaining, noise_key, second)
        improved = self.improvement(parameters["policy"], solver["policy"], given)
        parameters["policy"], solver["policy"] = improved.parameters, improved.state
        parameters["temperature"], solver["temperature"], loss = self.temperature.follow(
            parameters["temperature"],
            solver["temperature"],
            Entropies(improved.log_prob, self._allowed(here, rows.weights)),
            self.optimisers.temperature,
            remaining,
        )
        about = {
            "actor_loss": -improved.gain,
            "entropy": -improved.log_prob,
            "ent_coef_loss": loss,
            "actor_grad_norm": improved.grad_norm,
        }
        statistics = self.critic.with_policy(learner.statistics, parameters["policy"])
        return learner._replace(parameters=parameters, solver=solver, statistics=statistics), about

    def _allowed(self, here: States, weights: Array) -> Array | float:
        """Return the mean of log k - log n, where masks allow k of n actions."""
        if here.masks is None:
            return 0.0
        allowed = jnp.maximum(jnp.sum(here.masks, axis=-1), 1)
        return weighted_mean(jnp.log(allowed / here.masks.shape[-1]), weights)

    def _follow(self, learner: Learner) -> Learner:
        """Let the targets follow, where it is time."""
        parameters = learner.parameters

        def moved(following: tuple[Parameters, Any]) -> tuple[Parameters, Any]:
            target, statistics = following
            followed = {name: parameters[name] for name in target}, learner.statistics if self.target_network else ()
            return polyak((target, statistics), followed, self.tau)

        following = parameters["target"], learner.target_statistics
        if self.cadence.target_interval == 1:
            target, statistics = moved(following)
        else:
            moves = self.cadence.targets_move(learner.clock)
            target, statistics = jax.lax.cond(moves, moved, lambda following: following, following)
        if self.target_network:
            statistics = self.critic.with_policy(statistics, parameters["policy"])
        return learner._replace(parameters={**parameters, "target": target}, target_statistics=statistics)

    def _worth(self, learner: Learner, rewards: Array, costs: Array) -> Array:
        """Return what is learnt from of raw rewards and costs."""
        if self.needs_cost:
            rewards = CostPenalty(self.cost_coef).worth(rewards, jnp.where(costs == ABSENT, 0.0, costs))
        return self.rewards.scale(learner.reward_scale, rewards)

    # -- the end of an iteration --------------------------------------------------------------------------------------

    def happened(self, made: Round) -> Trajectory:
        """Return all steps of an iteration, ``[T, N]``."""
        return self.replay.recalled(self.replay.stepped(made.slots), self.replay.block)

    def report(self, learner: Learner, made: Round, key: Array) -> tuple[Learner, Diagnostics]:
        """Return the learner after an iteration whose steps are about to be stored, and its flight record."""
        sums, clock = made.sums, learner.clock
        record = {name: x / jnp.maximum(sums.critics, 1.0) for name, x in sums.critic.items()}
        record |= {name: x / jnp.maximum(sums.actors, 1.0) for name, x in sums.actor.items()}
        if not self.temperature.soft:
            record = {name: x for name, x in record.items() if name not in SOFT}
        learned, moved = sums.critics > 0.0, sums.actors > 0.0
        record = {name: jnp.where(moved if name in ACTOR else learned, x, jnp.nan) for name, x in record.items()}
        judged, overestimation = self._overestimation(learner, made, key)
        size = self.replay.size(clock.cursor, made.slots) * self.replay.n_envs
        record |= {
            "q_overestimation": overestimation,
            # Counts stay whole numbers: single precision has no odd ones above 2^24.
            "n_updates": clock.updates,
            "replay/size": size,
        }
        learner = learner._replace(
            judged=judged, clock=clock._replace(cursor=self.replay.after(clock.cursor, made.slots))
        )
        return learner, {**record, "finite": all_finite(learner)}

    def _overestimation(self, learner: Learner, made: Round, key: Array) -> tuple[Overestimation, Array]:
        """Compare what the critics say of the iteration's steps with what came of them."""
        trajectory = self.happened(made)
        keys = jax.random.split(key, 5)

        def rows(tree: Any) -> Any:
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

        here = self._states(learner, rows(trajectory.observations), rows(trajectory.action_masks))
        there = self._states(learner, rows(trajectory.successors), rows(trajectory.successor_masks))
        actions = self.policy.actions.unit_of(rows(trajectory.actions), jnp)
        critics = FixedCritics(self.critic, learner.parameters["critic"], learner.statistics, here, keys[0])
        values = critics.of(actions)
        valued = self._value_of(self.improvement.value, learner, critics, keys[1], keys[4])
        alpha = self.temperature.value(learner.parameters["temperature"])
        after = self._successor_values(learner, there, keys[2], keys[3])
        shape = trajectory.rewards.shape
        rewards = self._worth(learner, trajectory.rewards, trajectory.costs)  # type: ignore[arg-type]
        count = jnp.arange(shape[0])[:, None] < made.slots.slots
        bonuses = -entropy_part(alpha, valued.log_probs).reshape(shape)
        known = jnp.all(jnp.isfinite(bonuses))  # else nothing can be said of the soft return
        judged, overestimation = learner.judged.after(
            values=jnp.mean(values, axis=0).reshape(shape),
            rewards=rewards,
            bonuses=jnp.where(jnp.isfinite(bonuses), bonuses, 0.0),
            successor_values=after.reshape(shape),
            terminated=trajectory.terminated,
            truncated=trajectory.truncated,
            valid=trajectory.valid & count,
            known=self.replay.whole(made.slots.arrays, shape[0]),
            gamma=self.replay.gamma,
        )
        return judged, jnp.where(known, overestimation, jnp.nan)

    def memory(self) -> Arrays:
        """Return a memory in which nothing is remembered."""
        return self.replay.ring()

    def cut(self, memory: Arrays, learner: Learner) -> Arrays:
        """Return the memory with the newest steps truncated, where their episodes were under way."""
        return self.replay.cut(memory, learner.clock.cursor)

    def insert(self, made: Round, trajectory: Trajectory, slots: Array) -> Round:
        """Return what the iteration has made with relabelled rows among it: ``slots`` of its C slots ``[C, N]``."""
        return made._replace(slots=self.replay.add_relabelled(made.slots, trajectory, slots))

    def keep(self, memory: Arrays, made: Round, learner: Learner) -> tuple[Arrays, Learner]:
        """Return the memory with rows that were inserted between iterations, and the learner that knows of them."""
        clock = learner.clock
        after = learner._replace(clock=clock._replace(cursor=self.replay.after(clock.cursor, made.slots)))
        return self.store(memory, made, learner), after

    @property
    def apart(self) -> bool:
        """False: a round is one program."""
        return False

    @property
    def counts_episodes(self) -> bool:
        """Whether a round ends with an episode."""
        return self.cadence.by_episodes

    def among_resets(self) -> OffPolicy:
        """Return the method for environments that reset themselves in a step of their own, whose rows are no experience."""
        return replace(
            self, replay=replace(self.replay, all_valid=False), cadence=replace(self.cadence, all_valid=False)
        )

    def among_frames(self, frames: int) -> OffPolicy:
        """Return the method for environments whose images are their last ``frames`` frames, which are remembered once.

        Raises:
            UsageError: there is no room for a stack.
        """
        replay = replace(self.replay, frames=frames)
        if replay.slots <= replay.oldest:
            raise UsageError(
                f"buffer_size={replay.slots * replay.n_envs} holds {counted(replay.slots, 'step')} of each of "
                f"{counted(replay.n_envs, 'environment')}; observations are stacks of {frames} frames, so it must hold "
                f"{frames} or more."
            )
        return replace(self, replay=replay)

    def among_stored(self) -> OffPolicy:
        """Return the method for a memory that begins with stored transitions, of which there may be any number."""
        return replace(self, replay=replace(self.replay, aligned=False))

    def symptoms(self, metrics: Mapping[str, float | None]) -> dict[str, str]:
        """Return what the flight record shows of troubles."""
        replay = self.replay
        rows_per_step = 1 if self.hindsight is None else 1 + self.hindsight.goals
        remembered = replay.slots * replay.n_envs // rows_per_step
        forgets = not replay.next_actions  # else only the newest round is learnt from
        limit = self.critic.encoding.limit
        return symptoms(metrics, remembered if forgets else None, self.cadence.learning_starts, limit)

    def store(self, memory: Arrays, made: Round, learner: Learner) -> Arrays:
        """Return the memory with an iteration's steps in it; ``learner`` is the one from before the iteration."""
        return self.replay.store(memory, made.slots, learner.clock.cursor)

    def _no_sums(self) -> Sums:
        zero = jnp.zeros((), jnp.float32)
        return Sums(dict.fromkeys(CRITIC, zero), dict.fromkeys(ACTOR, zero), zero, zero)


CRITIC = ("critic_loss", "q_mean", "td_error", "ent_coef", "grad_norm")
"""What each update says of itself."""
ACTOR = ("actor_loss", "entropy", "ent_coef_loss", "actor_grad_norm")
"""What an update says of itself in which the policy moves."""
SOFT = ("entropy", "ent_coef", "ent_coef_loss")
"""What means something where entropy counts."""
