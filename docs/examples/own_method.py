"""A method of one's own, put together from Jumar's parts: an actor-critic that takes one step per rollout."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jumar import critics, estimators, normalise, objectives, policies, solvers
from jumar.algorithms.on_policy import OnPolicy
from jumar.envs.classic_control import ENVIRONMENTS
from jumar.schedules import Constant
from jumar.training.rollouts import CompiledRunner
from jumar.trajectory import standardise


def huber(values: Array, old_values: Array, targets: Array, remaining: Array) -> Array:
    """Return the Huber loss of the critic: quadratic near the target and linear far from it."""
    error = jnp.abs(values - targets)
    return jnp.where(error < 1.0, 0.5 * error**2, error - 0.5)


def main(iterations: int = 300, n_envs: int = 32, n_steps: int = 16) -> list[float]:
    """Train in CartPole; return the mean length of the episodes that ended in each iteration."""
    env = ENVIRONMENTS["CartPole-v1"]()
    settings = policies.PolicySettings()
    policy = policies.make_policy(env.observation_space, env.action_space, settings)
    adam = solvers.Optimiser(Constant(3e-3), optax.scale_by_adam(), max_grad_norm=0.5)
    update = OnPolicy(
        policy=policy,
        critic=critics.make_critic(policy.encoder, settings),
        rewards=normalise.RawRewards(),
        estimator=estimators.GAE(gamma=0.99, gae_lambda=0.95),
        scale_advantages=standardise,
        objective=objectives.Score(),
        ent_coef=0.01,
        value_loss=huber,
        solver=solvers.Joint(solvers.Ascent(adam), vf_coef=0.5),
    )
    runner = CompiledRunner(update, env, "CartPole-v1", n_envs, n_steps, n_seeds=None)
    learner_key, env_key, key = jax.random.split(jax.random.PRNGKey(0), 3)
    learner, collector = update.init(learner_key, n_envs), runner.init(env_key)
    lengths = []
    for i in range(iterations):
        remaining = 1.0 - i / iterations
        learner, collector, _, seen = runner.iterate(learner, collector, jax.random.fold_in(key, i), remaining)
        ended = (seen.terminated | seen.truncated).sum()
        lengths.append(seen.valid.sum() / max(ended, 1))
    return lengths


if __name__ == "__main__":
    course = main()
    print(f"episodes last {course[0]:.0f} steps at first and {sum(course[-20:]) / 20:.0f} at the end")
