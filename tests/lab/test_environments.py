"""The lab's problems as compiled environments, in single precision as everywhere: any agent can be trained in them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import GAMMA, HORIZON

import jumar
from jumar.envs.compiled import CompiledEnvironment, reset_batch, step_batch
from jumar.envs.compiled_check import check_compiled_environment
from jumar.errors import UsageError
from jumar.lab import regulator, tabular
from jumar.lab.families import network_policy
from jumar.lab.regulator import Regulator, RegulatorEnvironment
from jumar.lab.tabular import TabularEnvironment, TabularMDP
from jumar.policies.distributions import Categorical

N = 4000


def stepped(env: CompiledEnvironment, act: Callable[[Array, Array], Array], steps: int) -> tuple[np.ndarray, ...]:
    """Return observations, rewards and both kinds of ends of N copies, ``[steps, N]``; ``act`` is (key, observations)."""

    @jax.jit
    def play(key: Array) -> tuple[Array, ...]:
        states, observations = reset_batch(env, env.params, key, N)

        def step(now: tuple, key: Array) -> tuple:
            states, observations = now
            states, after = step_batch(env, env.params, key, states, act(key, observations))
            return (states, after.observations), (observations, after.rewards, after.terminated, after.truncated)

        return jax.lax.scan(step, (states, observations), jax.random.split(key, steps))[1]

    return tuple(map(np.asarray, play(jax.random.PRNGKey(0))))


@pytest.mark.parametrize(("horizon", "time_limit"), [(HORIZON, None), (None, HORIZON)])
def test_a_tabular_process_is_an_environment_with_its_own_probabilities(
    horizon: int | None, time_limit: int | None
) -> None:
    mdp, policy = processes.process(horizon), processes.random_policy(1)
    env = TabularEnvironment(mdp, time_limit)
    check_compiled_environment(env, "tabular")

    def act(key: Array, states: Array) -> Array:
        return Categorical(policy.logits[states]).sample(jax.random.fold_in(key, 1))

    states, rewards, terminated, truncated = stepped(env, act, 2 * HORIZON)
    ends = np.arange(1, 2 * HORIZON + 1) % HORIZON == 0
    ended, other = (terminated, truncated) if time_limit is None else (truncated, terminated)
    np.testing.assert_array_equal(ended, np.broadcast_to(ends[:, None], ended.shape))
    assert not other.any()
    visited = np.asarray(jax.nn.one_hot(states, mdp.n_states)).mean(1)
    exact = np.tile(tabular.occupancies(mdp, policy, HORIZON), (2, 1))  # the second episode begins anew
    np.testing.assert_array_less(np.abs(visited - exact), 5.0 * np.sqrt(exact * (1.0 - exact) / N))
    probs = np.asarray(policy.probs)
    mean_rewards = exact @ (probs * np.asarray(mdp.rewards)).sum(-1)
    np.testing.assert_array_less(np.abs(rewards.mean(1) - mean_rewards), 5.0 * rewards.std(1) / np.sqrt(N))


@pytest.mark.parametrize("time_limit", [None, 0])
def test_a_process_without_end_needs_a_time_limit(time_limit: int | None) -> None:
    with pytest.raises(UsageError, match=f"time_limit={time_limit} must be at least 1"):
        TabularEnvironment(processes.process(None), time_limit)


def test_the_regulator_is_an_environment_with_its_own_moments() -> None:
    env = RegulatorEnvironment()
    check_compiled_environment(env, "regulator")
    theta = jnp.array([-0.6, 0.2])

    def act(key: Array, states: Array) -> Array:
        return regulator.policy(theta, states[:, 0]).sample(jax.random.fold_in(key, 1))

    states, rewards, terminated, truncated = stepped(env, act, 20)
    np.testing.assert_allclose(rewards, -np.square(states[..., 0]), rtol=1e-6)
    np.testing.assert_array_equal(terminated, np.broadcast_to(np.arange(1, 21)[:, None] % 10 == 0, terminated.shape))
    assert not truncated.any()
    exact = np.tile(regulator.second_moments(Regulator(), theta), 2)
    np.testing.assert_array_less(np.abs(-rewards.mean(1) - exact), 5.0 * rewards.std(1) / np.sqrt(N))


def best_of_all(mdp: TabularMDP) -> float:
    """Return the worth of the best policy, which is one of the A^S deterministic ones."""
    tables = np.array(list(itertools.product(range(mdp.n_actions), repeat=mdp.n_states)))
    sure = 50.0 * jax.nn.one_hot(tables, mdp.n_actions)
    return float(jnp.max(jax.vmap(lambda logits: tabular.performance(mdp, Categorical(logits)))(sure)))


def test_an_agent_with_a_tabular_policy_comes_near_the_best_there_is() -> None:
    mdp = processes.process(None)
    env = TabularEnvironment(mdp, time_limit=40)
    agent = jumar.TRPO(env, seed=0, n_envs=32, n_steps=40, batch_size=320, gamma=GAMMA, net_arch=(), target_kl=0.05)

    def worth() -> float:
        actor = agent.actor()
        return float(tabular.performance(mdp, network_policy(mdp, actor.policy, actor.parameters, actor.moments)))

    before, best = worth(), best_of_all(mdp)
    agent.learn(20 * 32 * 40)
    assert worth() - before > 0.9 * (best - before) > 0.1
