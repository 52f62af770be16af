"""The update of methods that replay: an actor and a critic of action values, improved on the new rollout and on old ones.

It differs from :class:`jumar.algorithms.on_policy.update.OnPolicy` in that one iteration solves several problems, each on other
sequences, and in that actions which were not taken are judged too. Solvers, rewards and normalisers are the same parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.on_policy.costs import Costs, CostsIgnored
from jumar.algorithms.update import Learner, RolloutUpdate, all_finite, moments_after
from jumar.critics.state_values import ActionValueCritic
from jumar.estimators.importance import beyond_bound, retrace
from jumar.experience.rewards import RewardTransform
from jumar.experience.rollouts import Recent, Rollout, View, by_environment, kept, pushed
from jumar.policies.distributions import Categorical
from jumar.policies.policy import Policy
from jumar.solvers import Solver
from jumar.solvers.objectives import log_ratio, sampled_kl, score, score_of_all, squared_error
from jumar.solvers.problem import Diagnostics, Parameters, Problem
from jumar.trajectory import (
    Batch,
    Trajectory,
    explained_variance,
    of_actions,
    weighted_mean,
    weighted_means,
)


class Remembered(NamedTuple):
    """A rollout, and what its policy would have done instead; K of them have a leading axis K."""

    rollout: Rollout
    behaviour: Array
    """Log-probabilities of all actions by the policy that acted, ``[T, N, n]``."""


@dataclass(frozen=True)
class Replay(RolloutUpdate):
    r"""A method that replays; actions are those of a Discrete space.

    Once per iteration on the new rollout, then ``replay_ratio`` times on as many sequences drawn from all that are
    remembered, the solver climbs, for each row,

    .. math::
        \min(c, \rho) \log \pi_\theta(a|s) (Q^{ret} - V(s))
        + \sum_b \max(0, 1 - c / \rho(b)) \, \pi(b|s) \log \pi_\theta(b|s) (Q(s, b) - V(s)) + c_1 H(\pi_\theta),

    all but the logarithms being constants, :math:`V(s) = \sum_b \pi(b|s) Q(s, b)`, while the critic makes
    :math:`\frac12 (Q(s, a) - Q^{ret})^2` small, with the targets of :func:`jumar.estimators.importance.retrace`.
    """

    policy: Policy
    critic: ActionValueCritic
    rewards: RewardTransform
    remembers: Recent
    solver: Solver
    gamma: float
    retrace_lambda: float
    bound: float
    """c: ratios are cut here, and what is cut is made up for."""
    ent_coef: float
    replay_ratio: int
    """How many replays there are per iteration."""
    replay_start: int
    """Nothing is replayed before so many steps are remembered."""
    costs: Costs = CostsIgnored()
    """What becomes of costs: a price, or nothing."""

    @property
    def needs_cost(self) -> bool:
        """Whether each step must come with one cost."""
        return self.costs.needed

    def init(self, key: Array, n_envs: int) -> Learner:
        """Draw a learner's first state."""
        first, second = jax.random.split(key)
        parameters = {"policy": self.policy.init(first), "critic": self.critic.init(second)}
        rollouts = self.remembers.init(self.policy, self.critic, n_envs)
        shape = *rollouts.trajectory.rewards.shape, self.policy.actions.choices[0]
        return Learner(
            parameters=parameters,
            solver=self.solver.init(parameters),
            observation_moments=self.policy.encoder.initial_moments(),
            reward_scale=self.rewards.init(n_envs),
            ages=jnp.zeros((n_envs,), jnp.int32),
            experience=Remembered(rollouts, jnp.zeros(shape, jnp.float32)),
            costs=self.costs.init(n_envs),
            critic_carry=self.critic.initial_carry(n_envs),
        )

    def begin_with(self, learner: Learner, parameters: Parameters) -> Learner:
        """Return a first learner with other parameters in its place, and a solver that begins with them."""
        return learner._replace(parameters=parameters, solver=self.solver.init(parameters))

    def restart(self, learner: Learner) -> Learner:
        """Return the learner with all episodes begun anew (the environments were rebuilt); the memory stays."""
        return learner._replace(
            reward_scale=self.rewards.restart(learner.reward_scale),
            ages=jnp.zeros_like(learner.ages),
            critic_carry=self.critic.initial_carry(len(learner.ages)),
        )

    def learn(
        self, learner: Learner, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Learner, Diagnostics]:
        """Improve the learner with one rollout that its policy made; return it and the flight record."""
        return self.improve(learner, self.completed(learner, trajectory), remaining, key)

    def completed(self, learner: Learner, trajectory: Trajectory) -> Trajectory:
        """Fill in the critic's carry, and log pi of all actions under the policy that drew them."""
        trajectory = trajectory._replace(critic_carry=learner.critic_carry)
        batch = self.batch(learner, trajectory)
        acted = self._distribution(learner.parameters["policy"], batch)
        return trajectory._replace(log_probs=acted.log_prob(batch.actions).T)

    def improve(
        self, learner: Learner, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Learner, Diagnostics]:
        """Improve the learner with one rollout that is complete, and with some that are remembered.

        The flight record has means over all improvements, and what became of the new rollout's rows.
        """
        trajectory = self.costs.penalised(trajectory)
        reward_scale = self.rewards.learn(learner.reward_scale, trajectory)
        problem_of = partial(self._problem, learner, reward_scale)
        newest, view = self._remembered(learner, trajectory)
        memory = pushed(learner.experience, newest)
        n_envs = learner.ages.shape[0]

        def improve(state: tuple[Parameters, Any], sequences: Remembered, key: Array) -> Any:
            parameters, inside, about = self.solver.solve(problem_of(sequences), *state, remaining, key)
            return (parameters, inside), about

        def replay(state: tuple[Parameters, Any], key: Array) -> Any:
            draw_key, key = jax.random.split(key)
            return improve(state, drawn(memory, n_envs, draw_key), key)

        def replays(state: tuple[Parameters, Any]) -> Any:
            state, abouts = jax.lax.scan(replay, state, jax.random.split(jax.random.fold_in(key, 1), self.replay_ratio))
            return state, jax.tree.map(lambda x: jnp.sum(x, 0), abouts)

        old = learner.parameters
        first = jax.tree.map(lambda x: x[0], memory)
        state, about = improve((old, learner.solver), first, key)
        nothing = jax.tree.map(jnp.zeros_like, about)
        enough = jnp.sum(memory.rollout.trajectory.valid) >= self.replay_start
        state, sums = jax.lax.cond(enough, replays, lambda state: (state, nothing), state)
        steps = 1.0 + self.replay_ratio * enough.astype(jnp.float32)
        record = jax.tree.map(lambda one, others: (one + others) / steps, about, sums)

        parameters, solver = state
        problem = problem_of(first)
        batch = problem.estimate(old)
        mean_kl, max_kl = problem.distance(old["policy"], parameters["policy"], batch)
        record |= {
            "gradient_steps": steps,
            "mean_kl": mean_kl,
            "max_kl": max_kl,
            "explained_variance": explained_variance(batch.values, batch.returns, batch.weights),
        }
        new = Learner(
            parameters=parameters,
            solver=solver,
            observation_moments=moments_after(learner.observation_moments, trajectory, self.policy.encoder),
            reward_scale=reward_scale,
            ages=view.ages_after,
            experience=memory,
            costs=learner.costs,
            critic_carry=self._estimate(old, trajectory, view, newest.behaviour)[1],
        )
        return new, {**record, "finite": all_finite(new._replace(experience=()))}

    def batch(self, learner: Learner, trajectory: Trajectory) -> Batch:
        """Return a rollout's rows as the learner sees them."""
        sequences, view = self._remembered(learner, trajectory)
        return self._estimate(learner.parameters, trajectory, view, sequences.behaviour)[0]

    def _remembered(self, learner: Learner, trajectory: Trajectory) -> tuple[Remembered, View]:
        """Return a rollout of the learner's own policy as it is remembered, and its view."""
        rollout = Rollout(trajectory, learner.ages)
        view = View.of(rollout, self.policy.encoder, learner.observation_moments, self.critic.sees_time)
        acted = self._distribution(learner.parameters["policy"], view.rows(trajectory))
        return Remembered(kept(rollout, self.policy), by_environment(acted.log_probs)), view

    def _problem(self, learner: Learner, reward_scale: Any, sequences: Remembered) -> Problem:
        """Return the problem on some sequences ``[T, M]``."""
        rollout = sequences.rollout
        view = View.of(rollout, self.policy.encoder, learner.observation_moments, self.critic.sees_time)
        rewards = self.rewards.scale(reward_scale, rollout.trajectory.rewards)
        trajectory = rollout.trajectory._replace(rewards=rewards)

        def estimate(parameters: Parameters) -> Batch:
            return self._estimate(parameters, trajectory, view, sequences.behaviour)[0]

        return Problem(self._gain, self._critic_loss, self._distribution, estimate)

    def _estimate(
        self, parameters: Parameters, trajectory: Trajectory, view: View, behaviour: Array
    ) -> tuple[Batch, Any]:
        """Return the rows with advantages of the actions taken, of all actions, and targets; and the critic's carry."""
        rows = view.rows(trajectory)
        here, there = self.policy.evaluate_both(parameters["policy"], rows, view.successors, view.successor_masks)
        assert isinstance(here, Categorical)
        assert isinstance(there, Categorical)
        q, next_q, carry = self.critic.values(
            parameters["critic"], view.features, view.successors, trajectory.critic_carry, rows.episode_start
        )
        values = jnp.sum(here.probs * q, axis=-1)
        taken = of_actions(q, rows.actions)
        log_ratios = log_ratio(here.log_probs, by_environment(behaviour))
        of_taken = jnp.where(trajectory.valid.T, of_actions(log_ratios, rows.actions), 0.0)
        targets = retrace(
            trajectory.rewards,
            taken.T,
            jnp.sum(there.probs * next_q, axis=-1).T,
            trajectory.terminated,
            trajectory.truncated,
            of_taken.T,
            self.gamma,
            self.retrace_lambda,
        ).T
        batch = rows._replace(
            advantages=jnp.minimum(self.bound, jnp.exp(of_taken)) * (targets - values),
            action_advantages=beyond_bound(log_ratios, here.probs, self.bound) * (q - values[..., None]),
            returns=targets,
            values=taken,
        )
        return batch, carry

    def _distribution(self, parameters: Parameters, batch: Batch) -> Categorical:
        distribution = self.policy.evaluate(parameters, batch)
        assert isinstance(distribution, Categorical)
        return distribution

    def _gain(self, distribution: Categorical, batch: Batch) -> tuple[Array, Diagnostics]:
        """Return the mean objective with its entropy bonus, a function of the action distributions."""
        log_probs = distribution.log_prob(batch.actions)
        objective = score(log_probs, batch.advantages) + score_of_all(distribution.log_probs, batch.action_advantages)
        columns = {
            "actor_loss": -objective,
            "entropy": distribution.entropy(),
            "approx_kl": sampled_kl(log_probs, batch.log_probs),
        }
        means = weighted_means(columns, batch.weights)
        return self.ent_coef * means["entropy"] - means["actor_loss"], means

    def _critic_loss(self, parameters: Parameters, batch: Batch) -> tuple[Array, Diagnostics]:
        """Return half of the mean squared error of the values of the actions taken, a function of the critic's parameters."""
        values = of_actions(self.critic.evaluate(parameters, batch), batch.actions)
        loss = 0.5 * weighted_mean(squared_error(values, batch.returns), batch.weights)
        return loss, {"value_loss": loss}


def drawn(memory: Remembered, n: int, key: Array) -> Remembered:
    """Return ``n`` sequences drawn from all that are remembered, each anew: arrays ``[T, n]``."""
    valid = memory.rollout.trajectory.valid
    slot_key, environment_key = jax.random.split(key)
    # The newest come first; those that are not there yet have no valid row.
    filled = jnp.maximum(jnp.sum(jnp.any(valid, axis=(1, 2))), 1)
    slots = jax.random.randint(slot_key, (n,), 0, filled)
    environments = jax.random.randint(environment_key, (n,), 0, valid.shape[2])

    def rows(x: Array) -> Array:
        return jnp.swapaxes(x[slots, :, environments], 0, 1)

    def beginnings(x: Array) -> Array:
        return x[slots, environments]

    trajectory, ages = memory.rollout
    carries = jax.tree.map(beginnings, {"carry": trajectory.carry, "critic_carry": trajectory.critic_carry})
    by_row = jax.tree.map(rows, trajectory._replace(carry=(), critic_carry=()))
    return Remembered(Rollout(by_row._replace(**carries), beginnings(ages)), rows(memory.behaviour))
