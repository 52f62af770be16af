"""Trust regions and penalties by argmax: by hand, by their optimality conditions, and against many other policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from processes import ACTIONS, HORIZON, STATES

from jumar.errors import UsageError
from jumar.lab import improvement, tabular, trajectories, trust_regions
from jumar.lab.families import softmax
from jumar.lab.gradients import multiplier, natural_step, penalised_step, policy_gradient, step_fisher
from jumar.lab.tabular import TabularMDP
from jumar.lab.trust_regions import Optimum
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

KINDS = [
    (None, "mean", False),
    (None, "mean", True),
    (None, "max", False),
    (None, "max", True),
    (HORIZON, "mean", True),
    (HORIZON, "max", False),
    (HORIZON, "trajectory", False),
]
OLD = Categorical(np.asarray(processes.random_policy(20).logits, np.float64))  # type: ignore[arg-type]


@jax.jit
def measures(mdp: TabularMDP, new: Categorical) -> dict[str, Any]:
    of = {
        ("mean", False): improvement.mean_kl(mdp, OLD, new),
        ("mean", True): improvement.mean_kl(mdp, OLD, new, reverse=True),
        ("max", False): improvement.max_kl(OLD, new),
        ("max", True): improvement.max_kl(new, OLD),
    }
    if mdp.horizon is not None:
        of["trajectory", False] = trajectories.trajectory_kl(mdp, OLD, new)
    named = {f"{name} {reverse}": value for (name, reverse), value in of.items()}
    return {**named, "surrogate": improvement.surrogate(mdp, OLD, new)}


many = jax.jit(jax.vmap(measures, in_axes=(None, 0)))


def best(horizon: int | None, delta: float, divergence: str, reverse: bool) -> Optimum:
    return trust_regions.trust_region(processes.process(horizon), OLD, delta, divergence, reverse)


@pytest.mark.parametrize("delta", [1e-6, 0.01, 0.3])
@pytest.mark.parametrize(("horizon", "divergence", "reverse"), KINDS)
def test_the_answer_is_at_the_boundary_and_is_worth_what_it_says(
    horizon: int | None, divergence: str, reverse: bool, delta: float
) -> None:
    found = best(horizon, delta, divergence, reverse)
    measured = measures(processes.process(horizon), found.policy)
    np.testing.assert_allclose(measured[f"{divergence} {reverse}"], delta, rtol=1e-8)
    np.testing.assert_allclose([found.divergence, found.surrogate], [delta, measured["surrogate"]], rtol=1e-8)
    assert found.surrogate > 0.0


@pytest.mark.parametrize(("horizon", "divergence", "reverse"), KINDS)
def test_no_other_policy_of_the_region_promises_more(horizon: int | None, divergence: str, reverse: bool) -> None:
    """Of 4000 around the answer and around the old policy, drawn back into the region by a mixture of logits."""
    delta, rng = 0.05, np.random.default_rng(0)
    found = best(horizon, delta, divergence, reverse)
    mdp, answer = processes.process(horizon), np.asarray(found.policy.logits)
    noise = rng.standard_normal((2_000, STATES, ACTIONS)) * 10.0 ** rng.uniform(-3.0, 0.0, (2_000, 1, 1))
    around = np.concatenate([answer + noise, np.asarray(OLD.log_probs) + noise])
    measured = many(mdp, Categorical(jnp.asarray(around)))
    inside = np.asarray(measured[f"{divergence} {reverse}"]) <= delta
    promised = np.asarray(measured["surrogate"])
    assert inside.sum() > 500
    assert promised[inside].max() <= found.surrogate
    assert promised[inside].max() > 0.5 * found.surrogate
    assert promised.max() > found.surrogate  # outside there are better ones


@pytest.mark.parametrize(("horizon", "divergence", "reverse"), KINDS)
def test_the_multiplier_is_the_slope_of_the_best_surrogate(horizon: int | None, divergence: str, reverse: bool) -> None:
    delta, h = 0.05, 1e-5
    up, down = (best(horizon, delta + x, divergence, reverse).surrogate for x in (h, -h))
    found = best(horizon, delta, divergence, reverse)
    np.testing.assert_allclose((up - down) / (2.0 * h), found.multiplier, rtol=1e-6)


@pytest.mark.parametrize(("horizon", "divergence", "reverse"), KINDS)
def test_the_penalty_with_the_regions_multiplier_has_the_same_answer(
    horizon: int | None, divergence: str, reverse: bool
) -> None:
    found = best(horizon, 0.05, divergence, reverse)
    again = trust_regions.penalised(processes.process(horizon), OLD, found.multiplier, divergence, reverse)
    np.testing.assert_allclose(again.policy.logits, found.policy.logits, atol=1e-9)
    np.testing.assert_allclose([again.surrogate, again.divergence], [found.surrogate, 0.05], rtol=1e-9)


def test_two_actions_by_hand() -> None:
    """One state, a fair coin, A = +-1/2, gamma 0: L = p - 1/2, and the region is KL(p) = -log(4 p (1 - p)) / 2 <= delta."""
    mdp = TabularMDP.of([[[1.0], [1.0]]], [[1.0, 0.0]], [1.0], gamma=0.0)
    old, p = Categorical(jnp.zeros((1, 2))), 0.8
    delta = -0.5 * np.log(4.0 * p * (1.0 - p))
    for divergence in ("mean", "max"):
        found = trust_regions.trust_region(mdp, old, delta, divergence)
        np.testing.assert_allclose(np.exp(found.policy.logits), [[p, 1.0 - p]], rtol=1e-10)
        # dL / dp = 1 = lambda dKL / dp, dKL / dp = (p - 1/2) / (p (1 - p)).
        np.testing.assert_allclose([found.surrogate, found.multiplier], [0.3, p * (1.0 - p) / (p - 0.5)], rtol=1e-9)
    tilted = trust_regions.penalised(mdp, old, beta=0.5, reverse=True)
    np.testing.assert_allclose(np.exp(tilted.policy.logits[0, 0]), 1.0 / (1.0 + np.exp(-2.0)), rtol=1e-12)


def test_a_reversed_region_that_is_large_holds_the_greedy_policy() -> None:
    """KL(new || old) is at most -log of the smallest probability; the other direction has no bound."""
    mdp = processes.process(None)
    greedy = np.asarray(tabular.advantages(mdp, OLD)).argmax(-1)
    for divergence in ("mean", "max"):
        found = best(None, 50.0, divergence, True)
        np.testing.assert_array_equal(np.asarray(found.policy.logits).argmax(-1), greedy)
        np.testing.assert_allclose(np.exp(found.policy.logits).max(-1), 1.0)
        assert found.multiplier == 0.0
        assert found.divergence <= float(-np.asarray(OLD.log_probs).min()) + 1e-9
        assert np.all(np.isfinite(found.policy.logits))
    forward = best(None, 50.0, "mean", False)
    np.testing.assert_allclose(forward.divergence, 50.0)
    assert 0.0 < forward.multiplier < 1e-10


@pytest.mark.parametrize(("divergence", "reverse"), [("mean", False), ("mean", True)])
def test_a_small_region_has_the_natural_step(divergence: str, reverse: bool) -> None:
    """The exact answer and the linearised one differ by less than a part that falls with the root of delta."""
    mdp, family, flat = processes.process(None), softmax(processes.process(None)), OLD.logits.reshape(-1)
    fisher = step_fisher(family, flat, tabular.state_distribution(mdp, OLD))
    gradient = policy_gradient(mdp, family, flat)
    gaps = []
    for delta in (1e-4, 1e-6):
        found = best(None, delta, divergence, reverse)
        step = natural_step(fisher, gradient, delta)
        change = np.asarray(found.policy.probs) - np.asarray(OLD.probs)
        linear = np.asarray(family(flat + step).probs) - np.asarray(OLD.probs)
        gaps.append(np.linalg.norm(change - linear) / np.linalg.norm(linear))
        np.testing.assert_allclose(found.multiplier, multiplier(fisher, gradient, delta), rtol=10.0 * delta**0.5)
        np.testing.assert_allclose(
            penalised_step(fisher, gradient, float(multiplier(fisher, gradient, delta))), step, rtol=1e-10
        )
    assert gaps[0] < 0.1
    assert np.log(gaps[0] / gaps[1]) / np.log(1e2) == pytest.approx(0.5, abs=0.05)


def test_states_that_are_never_visited_keep_their_decisions() -> None:
    mdp = TabularMDP.of([[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2], [[0.0, 1.0], [0.0, 5.0]], [1.0, 0.0], 0.9)
    old = Categorical(jnp.array([[0.1, 0.0], [0.3, 0.0]]))
    for divergence in ("mean", "max"):
        found = trust_regions.trust_region(mdp, old, 0.1, divergence)
        np.testing.assert_allclose(found.policy.logits[1], old.log_probs[1], rtol=1e-12)
        assert found.policy.logits[0, 1] > old.log_probs[0, 1] + 0.1


def test_where_all_actions_are_equally_good_nothing_moves() -> None:
    mdp = replace(processes.process(None), rewards=np.ones((STATES, ACTIONS)))
    for divergence in ("mean", "max"):
        found = trust_regions.trust_region(mdp, OLD, 0.1, divergence)
        np.testing.assert_allclose(found.surrogate, 0.0, atol=1e-12)


def test_mistakes_are_named() -> None:
    mdp = processes.process(None)
    with pytest.raises(UsageError, match=r"delta=0\.0 must be above 0"):
        trust_regions.trust_region(mdp, OLD, 0.0)
    with pytest.raises(UsageError, match="beta=nan must be above 0"):
        trust_regions.penalised(mdp, OLD, float("nan"))
    with pytest.raises(UsageError, match="'median' is unknown; it must be one of mean, max, trajectory"):
        trust_regions.trust_region(mdp, OLD, 0.1, "median")
    with pytest.raises(UsageError, match="horizon=None"):
        trust_regions.trust_region(mdp, OLD, 0.1, "trajectory")
    with pytest.raises(UsageError, match="reverse=True"):
        trust_regions.trust_region(processes.process(HORIZON), OLD, 0.1, "trajectory", reverse=True)
    certain = Categorical(jnp.zeros((STATES, ACTIONS)).at[2, 1].set(-1e4))
    with pytest.raises(UsageError, match=r"takes action 1 in state 2 with probability 0\.0"):
        trust_regions.trust_region(mdp, certain, 0.1)
