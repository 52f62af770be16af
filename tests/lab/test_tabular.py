"""Exact values and visits of tabular processes: by hand, by the laws that they obey, and against drawn trajectories."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from compiling import stacked_decompositions
from jax import Array
from processes import ACTIONS, GAMMA, HORIZON, HORIZONS, STATES

from jumar.errors import UsageError
from jumar.lab import families, tabular
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

ONE_STATE: dict[str, Any] = {"transitions": [[[1.0]]], "rewards": [[1.0]], "initial": [1.0], "gamma": 0.9}
ONLY_ACTION = np.zeros((2, 1))


class Exact(NamedTuple):
    values: Array
    action_values: Array
    advantages: Array
    visits: Array
    states: Array
    worth: Array


@jax.jit
def quantities(mdp: TabularMDP, policy: Categorical) -> Exact:
    return Exact(
        tabular.state_values(mdp, policy),
        tabular.action_values(mdp, policy),
        tabular.advantages(mdp, policy),
        tabular.visitation(mdp, policy),
        tabular.state_distribution(mdp, policy),
        tabular.performance(mdp, policy),
    )


def test_a_reward_of_one_for_ever_is_worth_one_over_one_minus_gamma() -> None:
    mdp, policy = TabularMDP.of(**ONE_STATE), Categorical(jnp.zeros((1, 1)))
    found = quantities(mdp, policy)
    np.testing.assert_allclose(found.values, [10.0])
    np.testing.assert_allclose(found.visits, [10.0])
    np.testing.assert_allclose(found.worth, 10.0)


def test_a_reward_of_one_for_three_steps() -> None:
    mdp, policy = TabularMDP.of(**ONE_STATE, horizon=3), Categorical(jnp.zeros((1, 1)))
    found = quantities(mdp, policy)
    np.testing.assert_allclose(found.values, [[2.71], [1.9], [1.0]])
    np.testing.assert_allclose(found.visits, [[1.0], [0.9], [0.81]])
    np.testing.assert_allclose(found.worth, 2.71)


def test_two_states_in_turns() -> None:
    mdp = TabularMDP.of([[[0.0, 1.0]], [[1.0, 0.0]]], [[1.0], [0.0]], [1.0, 0.0], gamma=0.5)
    policy = Categorical(jnp.asarray(ONLY_ACTION))
    found = quantities(mdp, policy)
    np.testing.assert_allclose(found.values, [4 / 3, 2 / 3])
    np.testing.assert_allclose(found.visits, [4 / 3, 2 / 3])
    np.testing.assert_allclose(found.states, [2 / 3, 1 / 3])
    np.testing.assert_allclose(tabular.occupancies(mdp, policy, 3), [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    drawn = tabular.draw(mdp, policy, jax.random.PRNGKey(0), 5, 4)
    np.testing.assert_array_equal(drawn.states, np.tile([0, 1, 0, 1], (5, 1)))
    np.testing.assert_array_equal(drawn.rewards, np.tile([1.0, 0.0, 1.0, 0.0], (5, 1)))
    np.testing.assert_allclose(drawn.reward_to_go(0.5)[0], [1.25, 0.5, 1.0, 0.0])
    np.testing.assert_allclose(drawn.returns(0.5)[0], [1.25] * 4)


def test_a_last_step_is_worth_its_reward() -> None:
    mdp, policy = processes.process(HORIZON), processes.random_policy(1)
    np.testing.assert_allclose(quantities(mdp, policy).action_values[-1], mdp.rewards)


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_laws_of_values_and_visits(horizon: int | None, seed: int) -> None:
    mdp, policy = processes.process(horizon, seed), processes.random_policy(seed + 10)
    v, q, a, rho, d, j = map(np.asarray, quantities(mdp, policy))
    probs, transitions = np.asarray(policy.probs), np.asarray(mdp.transitions)
    mass = (1.0 - GAMMA) if horizon is None else (1.0 - GAMMA) / (1.0 - GAMMA**HORIZON)
    np.testing.assert_allclose((probs * q).sum(-1), v, rtol=1e-10)
    np.testing.assert_allclose((probs * a).sum(-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(d, mass * rho.reshape(-1, STATES).sum(0), rtol=1e-10)
    np.testing.assert_allclose(d.sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(j, np.asarray(mdp.initial) @ v.reshape(-1, STATES)[0], rtol=1e-10)
    # What flows into a state is what began there and what came from others.
    flow = rho[..., None] * probs
    arrived = GAMMA * np.einsum("...sa,sap->...p", flow, transitions)
    if horizon is None:
        np.testing.assert_allclose(rho, np.asarray(mdp.initial) + arrived, rtol=1e-10)
    else:
        np.testing.assert_allclose(rho[1:], arrived[:-1], rtol=1e-10)


def test_a_far_horizon_is_none() -> None:
    policy = processes.random_policy(2)
    near, far, none = (quantities(processes.process(h), policy).worth for h in (20, 200, None))
    np.testing.assert_allclose(far, none, rtol=1e-12)
    assert abs(near - none) > 1e-6 * abs(none)


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_drawn_trajectories_have_the_probabilities_and_the_worth_of_the_process(horizon: int | None) -> None:
    mdp, policy = processes.process(horizon), processes.random_policy(3)
    n, length = 20_000, horizon or 60
    rollouts = tabular.draw(mdp, policy, jax.random.PRNGKey(7), n, length)
    assert (rollouts.states.dtype, rollouts.actions.dtype, rollouts.rewards.dtype) == (np.int32, np.int32, np.float64)
    np.testing.assert_array_equal(rollouts.rewards, np.asarray(mdp.rewards)[rollouts.states, rollouts.actions])
    early = tabular.occupancies(mdp, policy, HORIZON)[..., None] * policy.probs
    counted = jnp.mean(
        jax.nn.one_hot(rollouts.states[:, :HORIZON], STATES)[..., None]
        * jax.nn.one_hot(rollouts.actions[:, :HORIZON], ACTIONS)[..., None, :],
        0,
    )
    np.testing.assert_array_less(np.abs(counted - early), 5.0 * np.sqrt(early * (1.0 - early) / n))
    returns = np.asarray(rollouts.returns(GAMMA)[:, 0])
    assert abs(returns.mean() - quantities(mdp, policy).worth) < 5.0 * returns.std() / np.sqrt(n)


def test_a_state_that_cannot_be_reached_is_never_drawn() -> None:
    """Also by the smallest uniform number, 0, and by the largest where probabilities sum to less than 1 by a bit."""
    probs = jnp.array([0.0, 0.3, 0.7 - 1e-15, 0.0])
    numbers = jnp.array([0.0, 0.2999, 0.3001, 1.0 - 2.0**-52])
    chosen = tabular._choose(jnp.broadcast_to(probs, (4, 4)), numbers)
    np.testing.assert_array_equal(chosen, [1, 1, 2, 2])


def test_random_processes_are_processes_and_differ() -> None:
    one, other = processes.process(None, 0), processes.process(None, 1)
    for mdp in (one, other):
        TabularMDP.of(mdp.transitions, mdp.rewards, mdp.initial, mdp.gamma, mdp.horizon)
    assert not np.any(np.asarray(one.rewards) == np.asarray(other.rewards))
    np.testing.assert_array_equal(one.transitions, processes.process(None, 0).transitions)


def test_processes_can_be_mapped_over() -> None:
    def worth(key: Array) -> Array:
        return tabular.performance(tabular.random_mdp(key, STATES, ACTIONS, GAMMA), processes.random_policy(0))

    keys = jax.vmap(jax.random.PRNGKey)(jnp.arange(3))
    alone = [quantities(processes.process(None, seed), processes.random_policy(0)).worth for seed in range(3)]
    np.testing.assert_allclose(jax.jit(jax.vmap(worth))(keys), alone, rtol=1e-12)


def test_many_policies_are_valued_one_after_the_other() -> None:
    mdp = processes.process(None)

    def worth(logits: Array) -> Array:
        policy = Categorical(logits)
        return tabular.performance(mdp, policy) + jnp.sum(tabular.state_values(mdp, policy))

    logits = jnp.stack([processes.random_policy(seed).logits for seed in (1, 2)])
    assert stacked_decompositions(jax.vmap(jax.grad(worth)), logits) == []


def test_what_is_no_policy_is_refused() -> None:
    mdp = processes.process(None)
    uniform = np.full((mdp.n_states, mdp.n_actions), 1.0 / mdp.n_actions)
    with pytest.raises(UsageError, match=r"not a .*Array.*; of a table of probabilities families\.table\(probs\)"):
        tabular.performance(mdp, uniform)  # type: ignore[arg-type]
    assert np.isfinite(tabular.performance(mdp, families.table(uniform)))


def test_parameters_that_are_no_array_are_refused() -> None:
    mdp = processes.process(None)
    theta = [0.0] * (mdp.n_states * mdp.n_actions)
    with pytest.raises(UsageError, match="theta is a list; it must be an array"):
        families.softmax(mdp)(theta)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": [1.0]}, r"\(1, 1, 1\), \(1,\) and \(1,\) do not fit"),
        ({"initial": [0.5, 0.5]}, "do not fit"),
        ({"transitions": [[[0.9]]]}, "transitions must be probabilities"),
        ({"transitions": [[[np.nan]]]}, "transitions must be probabilities"),
        ({"initial": [-1.0]}, "initial must be probabilities"),
        ({"rewards": [[np.inf]]}, "rewards must be finite"),
        ({"gamma": 1.0}, "gamma=1.0 must be in"),
        ({"gamma": -0.1}, "gamma=-0.1 must be in"),
        ({"gamma": 1.1, "horizon": 3}, "gamma=1.1 must be in"),
        ({"horizon": 0}, "horizon=0 must be at least 1"),
        ({"horizon": 2.5}, "horizon=2.5 must be at least 1 and a whole number"),
    ],
)
def test_what_is_no_process_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TabularMDP.of(**{**ONE_STATE, **changes})
