r"""The off-policy update: one function for the whole family, which takes parts and no flags.

A round of experience comes in. Then, as often as is due, rows are drawn from the memory, the critics regress on a target,

.. math::
    y = R + d \, \Big(\min_k Q_{\bar\phi_k}(s', a') - \alpha \log \pi(a'|s')\Big), \qquad
    L(\phi) = \tfrac12 \sum_k E[(Q_{\phi_k}(s, a) - y)^2],

the policy climbs the critics, :math:`E[Q_\phi(s, a_\theta(s)) - \alpha \log \pi_\theta(a_\theta|s)]`, the temperature
:math:`\alpha` follows the policy's entropy, and targets follow slowly. What is drawn where, which critics are asked, and what
moves how often are parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.off_policy.cadence import Cadence, Clock
from jumar.algorithms.off_policy.judgement import Judged
from jumar.algorithms.off_policy.symptoms import symptoms
from jumar.algorithms.off_policy.temperature import Temperature
from jumar.algorithms.on_policy.costs import CostPenalty
from jumar.algorithms.update import all_finite
from jumar.critics.ensemble import ActionValues, Reduction
from jumar.critics.targets import polyak
from jumar.experience.replay import ABSENT, Arrays, Fresh, Replay, Transitions
from jumar.experience.rewards import RewardTransform
from jumar.policies.exploration import Acting, Exploring
from jumar.policies.moments import RunningMoments
from jumar.policies.policy import Policy
from jumar.solvers.ascent import Optimiser
from jumar.solvers.problem import Diagnostics, Parameters
from jumar.trajectory import Trajectory, weighted_mean

Features = dict[str, Array]


class Chosen(NamedTuple):
    """Actions that a policy chooses, in units of half of their range."""

    actions: Array
    """``[B, d]``."""
    log_probs: Array
    """log pi of them in the environment's units, ``[B]``; 0 where the policy is deterministic."""


class Choice(Protocol):
    """A part that says which actions a policy chooses, as a function that gradients pass through."""

    @property
    def follows(self) -> bool:
        """Whether it is the target policy that chooses, which follows the policy slowly."""
        ...

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        """Draw what is random in the choice of ``shape`` ``(B, d)``."""
        ...

    def __call__(self, policy: Policy, parameters: Parameters, features: Features, noise: Array) -> Chosen:
        """Return the actions at encoded observations ``[B]``."""
        ...


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
    behaviour: Exploring
    replay: Replay
    rewards: RewardTransform
    cost_coef: float
    """So many times a cost is taken off the reward."""
    cadence: Cadence
    """When there are updates, and how many; when policy and targets move."""
    batch_size: int
    successor_choice: Choice
    """Which action values the successor in a target."""
    successor_value: Reduction
    """Which critics do."""
    actor_choice: Choice
    """Which action of the policy the critics judge."""
    actor_value: Reduction
    """Which critics do."""
    temperature: Temperature
    tau: float
    """How far targets move: 1 copies."""
    optimisers: Optimisers

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
            statistics=self.critic.initial_statistics(),
            judged=Judged.start(n_envs),
            clock=Clock.start(),
        )
        return self.begin_with(learner, parameters)

    def begin_with(self, learner: Learner, parameters: Parameters) -> Learner:
        """Return a first learner with other parameters in its place; targets and optimisers begin with them."""
        groups = {name: parameters[name] for name in ("policy", "critic", "temperature")}
        followed = ("policy", "critic") if self.successor_choice.follows else ("critic",)
        # Copies: what is donated to a program must not be there twice.
        target = {name: jax.tree.map(jnp.copy, groups[name]) for name in followed}
        solver = {name: getattr(self.optimisers, name).init(group) for name, group in groups.items()}
        return learner._replace(parameters={**groups, "target": target}, solver=solver)

    def restart(self, learner: Learner) -> Learner:
        """Return the learner with all episodes begun anew (the environments were rebuilt); the memory stays."""
        return learner._replace(
            reward_scale=self.rewards.restart(learner.reward_scale),
            judged=Judged.start(learner.judged.weight.shape[0]),
        )

    @property
    def mapped(self) -> tuple[Learner, Round]:
        """Which parts of a learner and of a round differ between seeds: 0, or ``None`` for what is counted."""
        learner: Any = Learner(0, 0, 0, 0, 0, 0, None)  # type: ignore[arg-type]
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
        cursor = learner.clock.cursor

        def once(i: Array, state: tuple[Learner, Sums]) -> tuple[Learner, Sums]:
            learner, sums = state
            draw_key, key_of_update = jax.random.split(jax.random.fold_in(key, i))
            rows = self.replay.draw(
                memory, slots, cursor, self.batch_size, draw_key, lambda *x: self._worth(learner, *x)
            )
            return self.improve(learner, sums, rows, remaining, key_of_update)

        learner, sums = jax.lax.fori_loop(0, due, once, (learner, made.sums))
        return learner, Round(slots, sums)

    def improve(
        self, learner: Learner, sums: Sums, rows: Transitions, remaining: Array, key: Array
    ) -> tuple[Learner, Sums]:
        """Do one update with rows of the memory."""
        keys = jax.random.split(key, 6)
        encoder, moments = self.policy.encoder, learner.observation_moments
        here, there = (encoder.encode(x, moments) for x in (rows.observations, rows.successors))
        actions = self.policy.actions.unit_of(rows.actions, jnp)
        shape = actions.shape
        parameters, solver = dict(learner.parameters), dict(learner.solver)
        alpha = self.temperature.value(parameters["temperature"])

        targets = rows.rewards + rows.discounts * self._successor_values(learner, there, shape, keys[0], keys[1])
        targets = jax.lax.stop_gradient(targets)

        def loss_of(critic: Parameters) -> tuple[Array, tuple[Array, Any]]:
            values, statistics = self.critic.apply(critic, learner.statistics, here, actions, keys[2], True)
            losses = jax.vmap(lambda q: weighted_mean(jnp.square(q - targets), rows.weights))(values)
            return 0.5 * jnp.sum(losses), (values, statistics)

        (loss, (values, statistics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(parameters["critic"])
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
            return self._climb(learner, here, rows.weights, shape, remaining, keys[3], keys[4])

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

    def _successor_values(
        self, learner: Learner, features: Features, shape: tuple[int, int], choice_key: Array, value_key: Array
    ) -> Array:
        r"""Return :math:`\min_k Q_{\bar\phi_k}(s', a') - \alpha \log \pi(a'|s')`, ``[B]``."""
        parameters, target = learner.parameters, learner.parameters["target"]
        choice = self.successor_choice
        chooser = target["policy"] if choice.follows else parameters["policy"]
        chosen = choice(self.policy, chooser, features, choice.noise(choice_key, shape))
        first, second = jax.random.split(value_key)
        values, _ = self.critic.apply(target["critic"], learner.statistics, features, chosen.actions, first, False)
        alpha = self.temperature.value(parameters["temperature"])
        return self.successor_value(values, second) - entropy_part(alpha, chosen.log_probs)

    def _climb(
        self,
        learner: Learner,
        features: Features,
        weights: Array,
        shape: tuple[int, int],
        remaining: Array,
        choice_key: Array,
        value_key: Array,
    ) -> tuple[Learner, Diagnostics]:
        """Move the policy up the critics, and the temperature after it."""
        parameters, solver = dict(learner.parameters), dict(learner.solver)
        alpha = self.temperature.value(parameters["temperature"])
        noise = self.actor_choice.noise(choice_key, shape)
        first, second = jax.random.split(value_key)

        def objective(policy: Parameters) -> tuple[Array, Array]:
            chosen = self.actor_choice(self.policy, policy, features, noise)
            values, _ = self.critic.apply(
                parameters["critic"], learner.statistics, features, chosen.actions, first, False
            )
            gain = self.actor_value(values, second) - entropy_part(alpha, chosen.log_probs)
            return weighted_mean(gain, weights), weighted_mean(chosen.log_probs, weights)

        (gain, log_prob), gradient = jax.value_and_grad(objective, has_aux=True)(parameters["policy"])
        parameters["policy"], solver["policy"] = self.optimisers.policy.ascend(
            parameters["policy"], gradient, solver["policy"], remaining
        )
        parameters["temperature"], solver["temperature"], loss = self.temperature.follow(
            parameters["temperature"], solver["temperature"], log_prob, self.optimisers.temperature, remaining
        )
        about = {"actor_loss": -gain, "entropy": -log_prob, "ent_coef_loss": loss, "actor_grad_norm": norm(gradient)}
        return learner._replace(parameters=parameters, solver=solver), about

    def _follow(self, learner: Learner) -> Learner:
        """Let the targets follow, where it is time."""
        parameters = learner.parameters

        def moved(target: Parameters) -> Parameters:
            return polyak(target, {name: parameters[name] for name in target}, self.tau)

        if self.cadence.target_interval == 1:
            target = moved(parameters["target"])
        else:
            moves = self.cadence.targets_move(learner.clock)
            target = jax.lax.cond(moves, moved, lambda target: target, parameters["target"])
        return learner._replace(parameters={**parameters, "target": target})

    def _worth(self, learner: Learner, rewards: Array, costs: Array) -> Array:
        """Return what is learnt from of raw rewards and costs."""
        if self.cost_coef > 0.0:
            rewards = rewards - self.cost_coef * jnp.where(costs == ABSENT, 0.0, costs)
        return self.rewards.scale(learner.reward_scale, rewards)

    # -- the end of an iteration --------------------------------------------------------------------------------------

    def happened(self, made: Round) -> Trajectory:
        """Return all steps of an iteration, ``[T, N]``."""
        return self.replay.recalled(made.slots.arrays, self.replay.block)

    def report(self, learner: Learner, made: Round, key: Array) -> tuple[Learner, Diagnostics]:
        """Return the learner after an iteration whose steps are about to be stored, and its flight record."""
        sums, clock = made.sums, learner.clock
        record = {name: x / jnp.maximum(sums.critics, 1.0) for name, x in sums.critic.items()}
        record |= {name: x / jnp.maximum(sums.actors, 1.0) for name, x in sums.actor.items()}
        if not self.temperature.soft:
            record = {name: x for name, x in record.items() if name not in SOFT}
        learned = sums.critics > 0.0
        record = {name: jnp.where(learned, x, jnp.nan) for name, x in record.items()}
        judged, overestimation = self._judge(learner, made, key)
        size = self.replay.size(clock.cursor, made.slots) * self.replay.n_envs
        record |= {
            "q_overestimation": overestimation,
            "n_updates": clock.updates.astype(jnp.float32),
            "replay/size": size.astype(jnp.float32),
        }
        learner = learner._replace(
            judged=judged, clock=clock._replace(cursor=self.replay.after(clock.cursor, made.slots))
        )
        return learner, {**record, "finite": all_finite(learner)}

    def _judge(self, learner: Learner, made: Round, key: Array) -> tuple[Judged, Array]:
        """Compare what the critics say of the iteration's steps with what came of them."""
        trajectory = self.happened(made)
        encoder, moments = self.policy.encoder, learner.observation_moments
        alpha = self.temperature.value(learner.parameters["temperature"])
        keys = jax.random.split(key, 5)

        def rows(tree: Any) -> Any:
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

        here, there = (encoder.encode(rows(x), moments) for x in (trajectory.observations, trajectory.successors))
        actions = self.policy.actions.unit_of(rows(trajectory.actions), jnp)
        values, _ = self.critic.apply(learner.parameters["critic"], learner.statistics, here, actions, keys[0], False)
        choice = self.actor_choice
        chosen = choice(self.policy, learner.parameters["policy"], here, choice.noise(keys[1], actions.shape))
        after = self._successor_values(learner, there, actions.shape, keys[2], keys[3])
        shape = trajectory.rewards.shape
        rewards = self._worth(learner, trajectory.rewards, trajectory.costs)  # type: ignore[arg-type]
        count = jnp.arange(shape[0])[:, None] < made.slots.slots
        return learner.judged.after(
            values=jnp.mean(values, axis=0).reshape(shape),
            rewards=rewards,
            bonuses=-entropy_part(alpha, chosen.log_probs).reshape(shape),
            successor_values=after.reshape(shape),
            terminated=trajectory.terminated,
            truncated=trajectory.truncated,
            valid=trajectory.valid & count,
            gamma=self.replay.gamma,
        )

    def memory(self) -> Arrays:
        """Return a memory in which nothing is remembered."""
        return self.replay.ring()

    def cut(self, memory: Arrays, learner: Learner) -> Arrays:
        """Return the memory with the newest steps truncated, where their episodes were under way."""
        return self.replay.cut(memory, learner.clock.cursor)

    def among_resets(self) -> OffPolicy:
        """Return the method for environments that reset themselves in a step of their own, whose rows are no experience."""
        return replace(
            self, replay=replace(self.replay, all_valid=False), cadence=replace(self.cadence, all_valid=False)
        )

    def symptoms(self, metrics: Mapping[str, float | None]) -> dict[str, str]:
        """Return what the flight record shows of troubles."""
        replay = self.replay
        return symptoms(metrics, replay.slots * replay.n_envs, self.cadence.learning_starts)

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


def entropy_part(alpha: Array, log_probs: Array) -> Array:
    r"""Return :math:`\alpha \log \pi`, and 0 where the temperature is 0, however small the density."""
    return jnp.where(alpha > 0.0, alpha * jnp.where(alpha > 0.0, log_probs, 0.0), 0.0)


def norm(tree: Any) -> Array:
    """Return the Euclidean norm of all numbers of a pytree together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
