r"""Sampled estimates converge to the exact quantities at the Monte Carlo rate, the error falling as :math:`n^{-1/2}`.

The error is the root of the mean square over :data:`SEEDS` independent batches, at four sizes of which each is four times the
one before. The logarithm of such a root has a standard deviation of about :math:`1 / \sqrt{2 \cdot 48 \cdot 4} = 0.05`
where the error has four independent parts, and the fitted slope one of :math:`0.05 / (\sqrt5 \log 4) \approx 0.016`. So a
band of 0.1 around -1/2 is six of them wide. An estimate with a bias has a slope that goes to 0.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import GAMMA, HORIZON

from jumar.lab import gradients, tabular
from jumar.lab.rollouts import Rollouts, discounts, sampled_gradient
from jumar.solvers import fisher as curvature

pytestmark = [pytest.mark.usefixtures("double_precision"), pytest.mark.slow]

SIZES = (256, 1024, 4096, 16384)
SEEDS = 48
FAMILIES = ("softmax", "linear")
BIASED = ("reward-to-go without discount", "immediate reward")
GRADIENTS = ("full return", "reward-to-go", "with a baseline", *BIASED)
UNBIASED = (*GRADIENTS[:3], "trajectory fisher", "step fisher", "discounted fisher")
CONSISTENT = (*UNBIASED, "natural gradient")


@functools.cache
def experiment(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the exact quantities, and the estimates of them with leading axes [seeds, sizes]."""
    mdp = processes.process(HORIZON)
    family, size = processes.families(mdp)[name]
    flat = 0.5 * processes.parameters(size)  # a little random everywhere: a small batch holds every action
    policy = family(flat)

    @jax.jit
    def exactly(flat: Array) -> dict[str, Array]:
        policy = family(flat)
        steps = tabular.occupancies(mdp, policy, HORIZON).mean(0)
        return {
            **dict.fromkeys(GRADIENTS, gradients.policy_gradient(mdp, family, flat)),
            "trajectory fisher": gradients.trajectory_fisher(mdp, family, flat, HORIZON),
            "step fisher": gradients.step_fisher(family, flat, steps),
            "discounted fisher": gradients.step_fisher(family, flat, tabular.state_distribution(mdp, policy)),
            "natural gradient": gradients.natural_gradient(mdp, family, flat),
        }

    every_score = curvature.scores(lambda x: family(x).log_probs, flat)
    values = tabular.state_values(mdp, policy)

    def estimates(some: Rollouts) -> dict[str, Array]:
        scores = every_score[some.states, some.actions]
        falling = jnp.broadcast_to(discounts(GAMMA, HORIZON), some.rewards.shape)
        even = jnp.ones_like(falling)
        to_go = some.reward_to_go(GAMMA)
        centred = sampled_gradient(scores, to_go - values[jnp.arange(HORIZON), some.states], falling)
        fisher = curvature.step_fisher(scores, falling)
        return {
            "full return": sampled_gradient(scores, some.returns(GAMMA), even),
            "reward-to-go": sampled_gradient(scores, to_go, falling),
            "with a baseline": centred,
            "reward-to-go without discount": sampled_gradient(scores, to_go, even),
            "immediate reward": sampled_gradient(scores, some.rewards, falling),
            "trajectory fisher": curvature.trajectory_fisher(scores, even),
            "step fisher": curvature.step_fisher(scores, even),
            "discounted fisher": fisher,
            "natural gradient": gradients.solve(fisher, centred),
        }

    def at_all_sizes(key: Array) -> dict[str, Array]:
        rollouts = tabular.draw(mdp, policy, key, SIZES[-1], HORIZON)
        parts = [estimates(jax.tree.map(lambda x: x[:n], rollouts)) for n in SIZES]
        return jax.tree.map(lambda *x: jnp.stack(x), *parts)

    keys = jax.random.split(jax.random.PRNGKey(0), SEEDS)
    found = jax.jit(lambda keys: jax.lax.map(at_all_sizes, keys))(keys)
    return jax.tree.map(np.asarray, exactly(flat)), jax.tree.map(np.asarray, found)


def errors(family: str, quantity: str) -> np.ndarray:
    """Return the root mean square of the error at each size, relative to the exact quantity."""
    exact, found = (table[quantity] for table in experiment(family))
    gaps = (found - exact).reshape(SEEDS, len(SIZES), -1)
    return np.sqrt(np.mean(np.sum(gaps**2, -1), 0)) / np.linalg.norm(exact)


def slope(sizes: np.ndarray) -> float:
    return float(np.polyfit(np.log(SIZES), np.log(sizes), 1)[0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantity", CONSISTENT)
def test_the_error_falls_as_one_over_the_root_of_the_number_of_trajectories(family: str, quantity: str) -> None:
    assert -0.6 < slope(errors(family, quantity)) < -0.4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantity", UNBIASED)
def test_the_mean_of_all_seeds_is_within_five_standard_errors(family: str, quantity: str) -> None:
    exact, found = (table[quantity] for table in experiment(family))
    largest = found[:, -1]
    standard_error = largest.std(0, ddof=1) / np.sqrt(SEEDS)
    np.testing.assert_array_less(np.abs(largest.mean(0) - exact), 5.0 * standard_error + 1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantity", BIASED)
def test_what_is_no_estimate_of_the_gradient_does_not_converge_to_it(family: str, quantity: str) -> None:
    """Dropping the weights of the states, or paying an action its own reward alone, as two of the documents print."""
    sizes = errors(family, quantity)
    assert slope(sizes[-2:].repeat(2)) > -0.25
    assert sizes[-1] > 3.0 * errors(family, "reward-to-go")[-1]


def test_a_process_without_end_is_estimated_from_its_first_steps() -> None:
    """What comes after 60 steps is worth 0.8^60, a millionth of the first."""
    mdp = processes.process(None)
    family, size = processes.families(mdp)["linear"]
    flat, length = processes.parameters(size), 60

    @jax.jit
    def estimates(keys: Array) -> Array:
        policy = family(flat)
        values = tabular.state_values(mdp, policy)
        every_score = curvature.scores(lambda x: family(x).log_probs, flat)

        def estimate(key: Array) -> Array:
            some = tabular.draw(mdp, policy, key, 100, length)
            signals = some.reward_to_go(GAMMA) - values[some.states]
            return sampled_gradient(every_score[some.states, some.actions], signals, discounts(GAMMA, length))

        return jax.lax.map(estimate, keys)

    each = np.asarray(estimates(jax.random.split(jax.random.PRNGKey(1), 50)))
    exact = gradients.policy_gradient(mdp, family, flat)
    standard_error = each.std(0) / np.sqrt(len(each))
    np.testing.assert_array_less(np.abs(each.mean(0) - exact), 5.0 * standard_error)
    assert (standard_error < 0.1 * np.linalg.norm(exact)).all()
