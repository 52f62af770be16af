"""A shipped agent in a linear-quadratic environment finds Riccati's gain."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import jumar
from jumar.lab import riccati
from jumar.lab.linear_quadratic import LinearPolicy, LinearQuadraticEnvironment, double_integrator
from jumar.lab.quadratic_values import performance


@pytest.mark.slow
def test_an_agent_with_a_linear_policy_finds_riccatis_gain() -> None:
    """With what Riccati's recursion converges to as the final cost, the best policy does not change with time."""
    limit = riccati.optimum(double_integrator(gamma=1.0, horizon=500)).curvature[0]
    problem = replace(double_integrator(gamma=1.0, horizon=10), final_cost=np.asarray(limit))
    best = riccati.optimum(problem).policy
    np.testing.assert_allclose(best.gain[0], best.gain[-1], rtol=1e-9)

    env = LinearQuadraticEnvironment(problem)
    agent = jumar.TRPO(env, seed=0, n_envs=512, n_steps=10, gamma=1.0, net_arch=(), advantage="to-go", target_kl=0.02)
    agent.learn(75 * 512 * 10)
    actor = agent.actor()
    offset, *columns = (actor.predict(np.array(state, np.float32))[0] for state in ([0, 0], [1, 0], [0, 1]))
    gain = np.stack([column - offset for column in columns], 1)
    np.testing.assert_allclose(gain, best.gain[0], atol=0.3)
    np.testing.assert_allclose(offset, 0.0, atol=0.15)

    # Judged by the exact worth, which a constant policy has almost none of.
    learnt = LinearPolicy(jnp.asarray(gain), jnp.asarray(offset), jnp.zeros((1, 1)))
    idle = LinearPolicy(jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros((1, 1)))
    top, found, bottom = (float(performance(problem, policy)) for policy in (best, learnt, idle))
    assert top - found < 0.01 * (top - bottom)
