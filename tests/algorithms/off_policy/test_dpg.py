"""DPG: compatible critics, Sarsa's targets, and the exact gradient of the regulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax.flatten_util import ravel_pytree
from replays import by_gradient, change, improve, make_update, scattered, scattered_learner, some_rows

from jumar.algorithms.off_policy.improvements import Climbing, Given, Rows
from jumar.algorithms.off_policy.state_values import FixedCritics, States
from jumar.critics.compatible import Compatible
from jumar.experience.replay import Cursor
from jumar.lab import regulator
from jumar.lab.precision import in_double
from jumar.lab.regulator import Regulator
from jumar.trajectory import Trajectory

KEY = jax.random.PRNGKey(0)


@pytest.mark.parametrize("gain", [-1.4, -0.9, -0.3, 0.2])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_deterministic_gradient_is_the_derivative_of_performance(gain: Any, gamma: float) -> None:
    problem = Regulator(gamma=gamma)
    gain = np.float64(gain)
    exact = in_double(jax.grad(lambda g: regulator.performance(problem, jnp.stack([g, 0.0 * g]))))(gain)
    ours = regulator.deterministic_policy_gradient(problem, gain)
    np.testing.assert_allclose(ours, exact, rtol=1e-8)


def test_the_policy_climbs_the_exact_gradient_on_the_regulator() -> None:
    """States at the deviation that the exact moments have, weighted by the discount; Q is the regulator's own."""
    problem = Regulator(gamma=0.9)
    gain: Any = np.float64(-0.6)
    theta: Any = np.array([gain, 0.0])
    update = by_gradient(make_update("dpg", spaces.Box(-4.0, 4.0, (1,), np.float32), net_arch=(), head_bias=False))
    states = np.sqrt(regulator.second_moments(problem, theta))  # a state for each step, with the right square
    slopes = regulator.action_slopes(problem, gain)
    weights = 0.9 ** np.arange(problem.depth)
    policy = update.policy
    parameters: Any = policy.init(KEY)
    # An observation of 3 numbers of which only the first is not 0; mu(s) = 4 tanh(w s) is linear near 0, so states are small.
    tiny = 0.02
    parameters["head"]["mean"]["kernel"] = jnp.asarray([[gain / 4.0], [0.0], [0.0]], jnp.float32)
    observed = np.zeros((problem.depth, 3), np.float32)
    observed[:, 0] = tiny * states

    class Exact:
        states = States({"vector": jnp.asarray(observed)}, None, (problem.depth, 1))

        def of(self, units: Any) -> Any:
            return (jnp.asarray(slopes * states * tiny, jnp.float32) * 4.0 * units[..., 0])[None]

    critics: Any = Exact()
    rows = Rows(jnp.zeros((problem.depth, 1)), jnp.asarray(weights, jnp.float32))
    climbing: Any = update.improvement
    assert isinstance(climbing, Climbing)
    zero, one = jnp.float32(0.0), jnp.float32(1.0)
    state = update.optimisers.policy.init(parameters)
    given = Given(policy, update.optimisers.policy, critics, rows, zero, one, KEY, KEY)
    improved = climbing(parameters, state, given)
    moved = (improved.parameters["head"]["mean"]["kernel"] - parameters["head"]["mean"]["kernel"])[0, 0]
    # In theta = 4 w, of a mean over weights, in units of the small states.
    ours = float(moved) / 0.5 / 4.0 * weights.sum() / tiny**2
    np.testing.assert_allclose(ours, regulator.deterministic_policy_gradient(problem, gain), rtol=1e-3)


def compatible(**settings: Any) -> Any:
    return make_update("dpg", critic="compatible", **settings)


def test_a_compatible_critic_by_hand() -> None:
    """Q - V is (a - mu) J w with the policy's Jacobian, and its slope in the action is J w."""
    update = compatible()
    assert isinstance(update.critic, Compatible)
    learner, rows = scattered_learner(update), some_rows()
    critic = scattered(update.critic.init(KEY), 2)
    policy = learner.parameters["policy"]
    features = update.policy.encoder.encode(rows.observations, learner.observation_moments)
    units = update.policy.actions.unit_of(jnp.asarray(rows.actions), jnp)
    flat, unravel = ravel_pytree(policy)

    def mode(flat: Any) -> Any:
        return update.policy.actions.to_unit(update.policy.at(unravel(flat), features).mode(), jnp)

    slope = np.einsum("bdp,p->bd", jax.jacobian(mode)(flat), ravel_pytree(critic["weights"])[0])
    values, same = update.critic.apply(critic, policy, features, units, KEY, True)
    at_mode, _ = update.critic.apply(critic, policy, features, mode(flat), KEY, True)
    np.testing.assert_allclose(values - at_mode, ((units - mode(flat)) * slope).sum(-1)[None], rtol=1e-4, atol=1e-6)
    assert same is policy
    of_actions = jax.grad(lambda units: jnp.sum(update.critic.apply(critic, policy, features, units, KEY, True)[0]))(
        units
    )
    np.testing.assert_allclose(of_actions, slope, rtol=1e-4, atol=1e-6)


def test_compatible_features_change_nothing_in_the_expected_gradient() -> None:
    """w by least squares from true slopes gives the policy the gradient that the true slopes give (theorem 3)."""
    update = compatible()
    learner, rows = scattered_learner(update), some_rows(200, seed=4)
    features = update.policy.encoder.encode(rows.observations, learner.observation_moments)
    flat, unravel = ravel_pytree(learner.parameters["policy"])

    def mode(flat: Any) -> Any:
        return update.policy.actions.to_unit(update.policy.at(unravel(flat), features).mode(), jnp)

    counts = rows.weights > 0.0
    jacobian = np.asarray(jax.jacobian(mode)(flat), np.float64)[counts]
    true = np.random.default_rng(0).normal(size=jacobian.shape[:2])
    w, *_ = np.linalg.lstsq(jacobian.reshape(-1, len(flat)), true.ravel(), rcond=1e-6)
    assert np.abs(np.einsum("bdp,p->bd", jacobian, w) - true).max() > 0.1  # the slopes themselves are not fitted
    critic = {**scattered(update.critic.init(KEY), 2), "weights": unravel(jnp.asarray(w, jnp.float32))}
    critics = FixedCritics(update.critic, critic, learner.parameters["policy"], States(features, None, (200, 2)), KEY)
    seen = Rows(update.policy.actions.unit_of(jnp.asarray(rows.actions), jnp), jnp.asarray(rows.weights))
    zero, one = jnp.float32(0.0), jnp.float32(1.0)
    optimiser = by_gradient(update).optimisers.policy
    given = Given(update.policy, optimiser, critics, seen, zero, one, KEY, KEY)
    policy = learner.parameters["policy"]
    improved = update.improvement(policy, optimiser.init(policy), given)
    by_true_slopes = np.einsum("bdp,bd->p", jacobian, true) / counts.sum()
    np.testing.assert_allclose(change(policy, improved.parameters), by_true_slopes, atol=2e-5)
    assert np.abs(by_true_slopes).max() > 1e-2


def test_on_policy_targets_take_the_least_of_several_critics() -> None:
    update = by_gradient(make_update("dpg", on_policy=True, train_freq=6, n_critics=2))
    learner, rows = scattered_learner(update), some_rows()
    there = update.policy.encoder.encode(rows.successors, learner.observation_moments)
    units = update.policy.actions.unit_of(jnp.asarray(rows.actions), jnp)
    after, _ = update.critic.apply(learner.parameters["critic"], (), there, units, KEY, False)
    here = update.policy.encoder.encode(rows.observations, learner.observation_moments)
    values, _ = update.critic.apply(learner.parameters["critic"], (), here, units, KEY, False)
    errors = np.asarray(values - (rows.rewards + rows.discounts * after.min(axis=0)), np.float64)
    _, said, _ = improve(update, learner, rows._replace(next_actions=rows.actions))
    assert said["critic_loss"] == pytest.approx(0.5 * np.sum(errors**2 @ rows.weights) / rows.weights.sum(), rel=1e-5)


@pytest.mark.parametrize(("on_policy", "speaks"), [(True, False), (False, True)])
def test_a_small_memory_is_spoken_of_only_where_steps_are_to_be_remembered(on_policy: bool, speaks: bool) -> None:
    update = make_update("dpg", on_policy=on_policy, learning_starts=100)
    assert bool(update.symptoms({})["forgets"]) == speaks


def test_the_compatible_critic_follows_the_policy() -> None:
    update = by_gradient(compatible())
    learner = scattered_learner(update)
    learner = update.begin_with(learner, learner.parameters)
    new, _, _ = improve(update, learner, some_rows())
    here, critics = (ravel_pytree(x)[0] for x in (new.parameters["policy"], new.statistics))
    np.testing.assert_array_equal(here, critics)
    assert np.any(here != ravel_pytree(learner.statistics)[0])
    assert "critic" not in new.parameters["target"]


def test_sarsas_target_is_that_of_the_action_taken_next() -> None:
    update = by_gradient(make_update("dpg", on_policy=True, train_freq=6))
    learner, rows = scattered_learner(update), some_rows()
    taken = np.flip(rows.actions, axis=0)
    there = update.policy.encoder.encode(rows.successors, learner.observation_moments)
    units = update.policy.actions.unit_of(jnp.asarray(taken), jnp)
    after, _ = update.critic.apply(learner.parameters["critic"], (), there, units, KEY, False)
    here = update.policy.encoder.encode(rows.observations, learner.observation_moments)
    done = update.policy.actions.unit_of(jnp.asarray(rows.actions), jnp)
    values, _ = update.critic.apply(learner.parameters["critic"], (), here, done, KEY, False)
    error = np.asarray(values[0] - (rows.rewards + rows.discounts * after[0]), np.float64)
    _, said, _ = improve(update, learner, rows._replace(next_actions=taken))
    assert said["critic_loss"] == pytest.approx(0.5 * rows.weights @ error**2 / rows.weights.sum(), rel=1e-5)


def test_next_actions_are_those_of_the_next_rows() -> None:
    """Slots of two environments; the newest, and a truncated row, count for nothing, a terminated one does."""
    update = make_update("dpg", on_policy=True, train_freq=8, n_envs=2)
    replay = replace(update.replay, all_valid=True)
    assert (replay.slots, replay.next_actions) == (5, True)
    shape = (4, 2)
    rows = np.arange(8, dtype=np.float32).reshape(shape)
    zeros = np.zeros(shape, bool)
    terminated, truncated = zeros.copy(), zeros.copy()
    terminated[1, 0] = truncated[2, 1] = True
    columns: dict[str, Any] = {
        "observations": np.zeros((*shape, 3), np.float32),
        "actions": np.stack([rows, 10.0 + rows], axis=-1),
        "rewards": rows,
        "terminated": terminated,
        "truncated": truncated,
        "successors": np.zeros((*shape, 3), np.float32),
        "valid": ~zeros,
        "episode_start": zeros,
        "log_probs": rows,
        "action_masks": None,
        "costs": None,
        "carry": (),
        "critic_carry": (),
    }
    trajectory = Trajectory(**columns)
    fresh = replay.add(replay.fresh(), jax.tree.map(jnp.asarray, trajectory))
    drawn = replay.draw(replay.ring(), fresh, Cursor.start(), 400, KEY)
    seen = set()
    following: Any = drawn.next_actions
    for reward, action, weight in zip(drawn.rewards, following, drawn.weights, strict=True):
        row = int(reward)
        t, i = divmod(row, 2)
        seen.add(row)
        known = t < 3 and not truncated[t, i]
        assert float(weight) == (1.0 if known or terminated[t, i] else 0.0)
        if known:
            np.testing.assert_array_equal(action, [row + 2.0, row + 12.0])
    assert seen == set(range(8))
