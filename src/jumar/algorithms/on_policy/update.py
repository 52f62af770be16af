"""The on-policy update: one function for the whole family, which takes parts and no flags.

Experience comes in, the critic values it, the estimator makes advantages, the solver climbs the objective, and the
normalisers learn from the rollout last of all, so that nothing moves between acting and the first ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.on_policy.costs import Costs, CostsIgnored
from jumar.algorithms.on_policy.valuations import StateValues, Valuation
from jumar.algorithms.update import Learner, RolloutUpdate, all_finite, moments_after
from jumar.critics.sharing import Sharing, Unshared
from jumar.critics.state_values import Critic
from jumar.estimators.advantages import Estimates, Estimator, Steps
from jumar.experience.rewards import RewardTransform
from jumar.experience.rollouts import Experience, Latest, Rollout, View
from jumar.networks.transposed import with_turned_kernels
from jumar.policies.distributions import Distribution
from jumar.policies.policy import Policy
from jumar.solvers import Apart, Solver
from jumar.solvers.objectives import PolicyObjective, ValueLoss, log_ratio, sampled_kl
from jumar.solvers.problem import Diagnostics, Divergence, Parameters, Problem, kl
from jumar.trajectory import Batch, Trajectory, explained_variance, weighted_mean, weighted_means


@dataclass(frozen=True)
class OnPolicy(RolloutUpdate):
    """A method of the family: a choice of parts."""

    policy: Policy
    critic: Critic
    rewards: RewardTransform
    estimator: Estimator
    scale_advantages: Callable[[Array, Array], Array]
    """Scales the advantages of a minibatch by its weights: ``standardise``, ``centred`` or ``unscaled`` of
    ``jumar.trajectory``."""
    objective: PolicyObjective
    ent_coef: float
    value_loss: ValueLoss
    solver: Solver
    divergence: Divergence = kl
    """What trust regions bound and penalties weigh."""
    experience: Experience = Latest()
    """Which rollouts are learnt from."""
    costs: Costs = CostsIgnored()
    """What becomes of costs beside the rewards: a constraint, a price, or nothing."""
    sharing: Sharing = Unshared()
    """What of the policy's networks the critic is given."""
    valuation: Valuation = StateValues()
    """What the critic's outputs are the values of."""

    @property
    def apart(self) -> bool:
        """Whether policy and critic move apart, so that neither needs what the other becomes."""
        return isinstance(self.solver, Apart)

    @property
    def needs_cost(self) -> bool:
        """Whether each step must come with one cost."""
        return self.costs.needed

    def init(self, key: Array, n_envs: int) -> Learner:
        """Draw a learner's first state."""
        first, second = jax.random.split(key)
        parameters = {"policy": self.policy.init(first), "critic": self.critic.init(second)}
        moments = self.policy.encoder.initial_moments()
        no_steps = jnp.zeros((n_envs,), jnp.int32)
        return Learner(
            parameters=parameters,
            solver=self.solver.init(parameters),
            observation_moments=moments,
            reward_scale=self.rewards.init(n_envs),
            ages=no_steps,
            experience=self.experience.init(self.policy, self.critic, n_envs),
            costs=self.costs.init(n_envs),
            critic_carry=self.critic.initial_carry(n_envs),
        )

    def begin_with(self, learner: Learner, parameters: Parameters) -> Learner:
        """Return a first learner with other parameters in its place, and a solver that begins with them."""
        return learner._replace(parameters=parameters, solver=self.solver.init(parameters))

    def restart(self, learner: Learner) -> Learner:
        """Return the learner with all episodes begun anew (the environments were rebuilt)."""
        return learner._replace(
            reward_scale=self.rewards.restart(learner.reward_scale),
            ages=jnp.zeros_like(learner.ages),
            costs=self.costs.restart(learner.costs),
            critic_carry=self.critic.initial_carry(len(learner.ages)),
        )

    def learn(
        self, learner: Learner, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Learner, Diagnostics]:
        """Improve the learner with one rollout that its policy made; return it and the flight record."""
        return self.improve(learner, self.completed(learner, trajectory), remaining, key)

    def completed(self, learner: Learner, trajectory: Trajectory) -> Trajectory:
        """Fill in the critic's carry, and log pi of all actions under the policy that drew them.

        The latter is done for all steps at once, rather than while they are taken.
        """
        trajectory = trajectory._replace(critic_carry=learner.critic_carry)
        batch = self.batch(learner, trajectory)
        log_probs = self.policy.evaluate(learner.parameters["policy"], batch).log_prob(batch.actions)
        n = trajectory.rewards.shape[1]
        return trajectory._replace(log_probs=log_probs.reshape(n, -1).T)

    def improve(
        self, learner: Learner, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Learner, Diagnostics]:
        """Improve the learner with one rollout that is complete."""
        costs = self.costs.follow(learner.costs, trajectory)
        trajectory = self.costs.penalised(trajectory)
        reward_scale = self.rewards.learn(learner.reward_scale, trajectory)
        new_rollout = Rollout(trajectory, learner.ages)
        rollout, experience = self.experience.add(learner.experience, new_rollout, self.policy)
        rewards = self.rewards.scale(reward_scale, rollout.trajectory.rewards)
        rollout = rollout._replace(trajectory=rollout.trajectory._replace(rewards=rewards))
        view = self._view(learner, rollout)
        old = learner.parameters

        def estimate(parameters: Parameters) -> Batch:
            return self._estimate(parameters, rollout.trajectory, view).batch

        problem = Problem(
            partial(self._gain, remaining),
            partial(self._critic_loss, remaining),
            self.policy.evaluate,
            estimate,
            self._prepare,
            self.divergence,
            self.costs.constraint(costs),
            self.sharing.rows,
            self._backward_form,
        )
        parameters, solver, record = self.solver.solve(problem, old, learner.solver, remaining, key)

        first = self._estimate(old, rollout.trajectory, view)
        batch = self._prepare(first.batch)
        record |= self._flight_record(problem, old, parameters, batch, remaining)
        record["counted"] = jnp.sum(batch.weights > 0.0) / jnp.maximum(jnp.sum(rollout.trajectory.valid), 1)
        record |= self.costs.record(costs, problem, old, parameters, batch)
        record |= self.experience.diagnose(first.estimates, rollout.trajectory.weights)
        moments = moments_after(learner.observation_moments, trajectory, self.policy.encoder)
        # The new rollout's environments come first.
        critic_carry, ages_after = jax.tree.map(
            lambda x: x[: learner.ages.shape[0]], (first.critic_carry, view.ages_after)
        )
        new = Learner(parameters, solver, moments, reward_scale, ages_after, experience, costs, critic_carry)
        return new, {**record, "finite": all_finite(new._replace(experience=()))}

    def batch(self, learner: Learner, trajectory: Trajectory) -> Batch:
        """Return a rollout's rows as the learner sees them."""
        view = self._view(learner, Rollout(trajectory, learner.ages))
        return self._estimate(learner.parameters, trajectory, view).batch

    def _view(self, learner: Learner, rollout: Rollout) -> View:
        return View.of(rollout, self.policy.encoder, learner.observation_moments, self.critic.sees_time)

    def _estimate(self, parameters: Parameters, trajectory: Trajectory, view: View) -> _Estimated:
        """Return the whole batch with fresh advantages."""
        batch = view.rows(trajectory)
        features, successors = self.sharing.sequences(parameters["policy"], view.features, view.successors)
        seen = view._replace(features=features, successors=successors)
        valued, carry = self.valuation(self.policy, self.critic, parameters, batch, seen, trajectory)
        # Where no estimator asks for the ratios, the compiler leaves this evaluation out.
        log_probs = self.policy.evaluate(parameters["policy"], batch).log_prob(batch.actions)
        steps = Steps(
            rewards=trajectory.rewards,
            values=valued.values.T,
            successor_values=valued.successor_values.T,
            terminated=trajectory.terminated,
            truncated=trajectory.truncated,
            age=view.ages,
            log_ratios=jnp.where(trajectory.valid, log_ratio(log_probs, batch.log_probs).T, 0.0),
            weights=trajectory.weights,
            action_values=None if valued.action_values is None else valued.action_values.T,
        )
        estimates = self.estimator(steps)
        batch = batch._replace(
            advantages=estimates.advantages.T,
            returns=estimates.targets.T,
            values=valued.fitted,
            weights=batch.weights * estimates.weights.T,
        )
        batch, carry = self.costs.estimate(parameters["critic"], batch, trajectory, view.successors, steps, carry)
        if self.policy.recurrent or self.critic.recurrent:
            return _Estimated(batch, carry, estimates)
        batch = batch._replace(carry=(), critic_carry=())
        return _Estimated(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch), carry, estimates)

    def _backward_form(self, parameters: Parameters, batch: Batch) -> Distribution:
        """Return what :meth:`Policy.evaluate` does, in a form that many derivatives backward can be taken of."""
        return self.policy.evaluate(with_turned_kernels(parameters), batch)

    def _prepare(self, batch: Batch) -> Batch:
        """Return a minibatch as the objective takes it, its advantages scaled."""
        return batch._replace(advantages=self.scale_advantages(batch.advantages, batch.weights))

    def _gain(self, remaining: Array, distribution: Distribution, batch: Batch) -> tuple[Array, Diagnostics]:
        """Return the mean objective with its entropy bonus, a function of the action distributions."""
        log_probs = distribution.log_prob(batch.actions)
        columns = {
            "actor_loss": -self.objective(log_probs, batch.log_probs, batch.advantages, remaining),
            "entropy": distribution.entropy(),
            "approx_kl": sampled_kl(log_probs, batch.log_probs),
            **self.objective.diagnose(log_probs, batch.log_probs, remaining),
        }
        means = weighted_means(columns, batch.weights)
        return self.ent_coef * means["entropy"] - means["actor_loss"], means

    def _critic_loss(self, remaining: Array, parameters: Parameters, batch: Batch) -> tuple[Array, Diagnostics]:
        """Return the mean value loss, a function of the critic's parameters."""
        values = self.critic.evaluate(parameters, batch)
        loss = weighted_mean(self.value_loss(values, batch.values, batch.returns, remaining), batch.weights)
        of_costs, about = self.costs.loss(parameters, batch, remaining)
        return loss + of_costs, {"value_loss": loss, **about}

    def _flight_record(
        self, problem: Problem, old: Parameters, new: Parameters, batch: Batch, remaining: Array
    ) -> Diagnostics:
        """Measure the whole update on the whole (prepared) batch, by the estimates that it began with."""

        def objective(parameters: Parameters) -> Array:
            log_probs = problem.distribution(parameters["policy"], batch).log_prob(batch.actions)
            return weighted_mean(self.objective(log_probs, batch.log_probs, batch.advantages, remaining), batch.weights)

        mean_kl, max_kl = replace(problem, divergence=kl).distance(old["policy"], new["policy"], batch)
        record = {
            "policy_objective_before": objective(old),
            "policy_objective_after": objective(new),
            "mean_kl": mean_kl,
            "max_kl": max_kl,
        }
        if jax.tree.leaves(old["critic"]):  # else there is no critic that could explain anything
            record["explained_variance"] = explained_variance(batch.values, batch.returns, batch.weights)
        return record


class _Estimated(NamedTuple):
    """A view with what critic and policy say of it."""

    batch: Batch
    critic_carry: Any
    """The critic's carry after the last row."""
    estimates: Estimates
    """``[T, N]``."""
