"""What training's estimators add up to over all trajectories there are, against the exact policy gradient."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import GAMMA

from jumar.algorithms.on_policy.a2c import A2CSettings
from jumar.algorithms.on_policy.ispg import ISPGSettings, weighted
from jumar.algorithms.on_policy.parts import estimator
from jumar.algorithms.on_policy.reinforce import ReinforceSettings
from jumar.estimators.advantages import Estimator, Steps
from jumar.lab import gradients, tabular
from jumar.lab.families import softmax
from jumar.lab.tabular import TabularMDP
from jumar.solvers.fisher import scores

pytestmark = pytest.mark.usefixtures("double_precision")

STATES, ACTIONS, LENGTH = 2, 2, 3


class Everything(NamedTuple):
    """All trajectories of a process, ``[T, N]``, as a policy and another one that acted see them."""

    probs: np.ndarray
    """P of each trajectory under the policy that acted, ``[N]``."""
    steps: Steps
    scores: np.ndarray
    """``[T, N, d]``, of the policy."""
    gradient: np.ndarray
    """The exact gradient of J, ``[d]``."""


def everything(acted: float = 0.0) -> Everything:
    """Return all 4^3 trajectories; ``acted`` says how far the policy that acted is from the policy."""
    mdp: TabularMDP = tabular.random_mdp(jax.random.PRNGKey(2), STATES, ACTIONS, GAMMA, LENGTH)
    family = softmax(mdp)
    flat = jnp.asarray(np.random.default_rng(5).standard_normal(STATES * ACTIONS))
    other = flat + acted * jnp.arange(4.0)
    ways = np.array(list(itertools.product(range(STATES), range(ACTIONS), repeat=LENGTH)))
    states, actions = ways[:, ::2].T, ways[:, 1::2].T
    initial, transitions, rewards = map(np.asarray, (mdp.initial, mdp.transitions, mdp.rewards))
    log_probs, log_acted = (np.asarray(family(x).log_probs)[states, actions] for x in (flat, other))
    moves = transitions[states[:-1], actions[:-1], states[1:]].prod(0)
    probs = initial[states[0]] * moves * np.exp(log_acted.sum(0))
    ended = np.zeros(states.shape, bool)
    ended[-1] = True
    earned, last, zeros = jnp.asarray(rewards[states, actions]), jnp.asarray(ended), jnp.zeros(states.shape)
    steps = Steps.on_policy(earned, zeros, zeros, last, jnp.zeros_like(last))
    each = np.asarray(scores(lambda x: family(x).log_probs, flat))[states, actions]
    exact = np.asarray(gradients.policy_gradient(mdp, family, flat))
    return Everything(probs, steps._replace(log_ratios=jnp.asarray(log_probs - log_acted)), each, exact)


def expected_gradient(of: Everything, made_by: Estimator) -> np.ndarray:
    """Return the expectation of a trajectory's sum of weight, importance, advantage and score."""
    estimates = jax.jit(made_by)(of.steps)
    signals = np.asarray(estimates.weights * estimates.advantages * estimates.importance)
    return np.einsum("n,tn,tnd->d", of.probs, signals, of.scores)


def reinforce(**settings: Any) -> Estimator:
    return estimator(ReinforceSettings(gamma=GAMMA, baseline="none", **settings))


@pytest.mark.parametrize(
    ("advantage", "discount_states"), [("return", False), ("return", True), ("to-go", True)], ids=str
)
def test_whole_returns_and_discounted_rewards_to_go_give_the_gradient_of_the_return(
    advantage: str, discount_states: bool
) -> None:
    of = everything()
    found = expected_gradient(of, reinforce(advantage=advantage, discount_states=discount_states))
    np.testing.assert_allclose(of.probs.sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(found, of.gradient, rtol=0.0, atol=1e-12)
    assert np.linalg.norm(of.gradient) > 0.1


def test_rewards_to_go_without_the_weights_of_states_give_another_gradient() -> None:
    of = everything()
    found = expected_gradient(of, reinforce(advantage="to-go"))
    assert np.linalg.norm(found - of.gradient) > 0.1 * np.linalg.norm(of.gradient)
    cosine = found @ of.gradient / (np.linalg.norm(found) * np.linalg.norm(of.gradient))
    assert cosine < 1.0 - 1e-4, "not even the direction is the same"


@pytest.mark.parametrize("advantage", ["return", "to-go"])
def test_ratios_of_trajectories_give_the_same_gradient_from_what_another_policy_did(advantage: str) -> None:
    of = everything(acted=0.3)
    settings = ISPGSettings(
        gamma=GAMMA, baseline="none", importance="trajectory", advantage=advantage, discount_states=True
    )
    np.testing.assert_allclose(expected_gradient(of, weighted(settings)), of.gradient, rtol=0.0, atol=1e-12)


def test_a_baseline_of_time_shrinks_the_gradient_by_each_row_s_share_of_its_mean() -> None:
    """Over all pairs of trajectories: with two rows of each time the expected gradient is half of the exact one."""
    of = everything()
    n = of.probs.size
    first, second = (np.asarray(index).reshape(-1) for index in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    made_by = estimator(ReinforceSettings(gamma=GAMMA, baseline="time", discount_states=True))

    def pair(rows: jax.Array) -> jax.Array:
        estimates = made_by(jax.tree.map(lambda x: x[:, rows], of.steps))
        signals = estimates.weights * estimates.advantages
        return jnp.einsum("tn,tnd->d", signals, jnp.asarray(of.scores)[:, rows]) / 2.0

    gradients_of_pairs = jax.jit(jax.vmap(pair))(jnp.stack([first, second], 1))
    found = (of.probs[first] * of.probs[second]) @ np.asarray(gradients_of_pairs)
    np.testing.assert_allclose(found, 0.5 * of.gradient, rtol=0.0, atol=1e-12)


def test_advantages_over_n_steps_are_between_those_of_one_step_and_those_of_all() -> None:
    """The settings' two ends are GAE with a lambda of 0 and of 1."""
    of = everything()
    guessed = of.steps.rewards * 0.3
    guess = of.steps._replace(values=guessed, successor_values=jnp.roll(guessed, -1, 0))

    def advantages(**settings: Any) -> np.ndarray:
        return np.asarray(estimator(A2CSettings(gamma=GAMMA, **settings))(guess).advantages)

    one, two, all_steps = (advantages(advantage="n-step", advantage_steps=n) for n in (1, 2, 1_000_000))
    np.testing.assert_allclose(one, advantages(gae_lambda=0.0), atol=1e-12)
    np.testing.assert_allclose(all_steps, advantages(gae_lambda=1.0), atol=1e-12)
    rewards, values, after = (np.asarray(x) for x in (guess.rewards, guess.values, guess.successor_values))
    np.testing.assert_allclose(two[0], rewards[0] + GAMMA * rewards[1] + GAMMA**2 * after[1] - values[0], atol=1e-12)
