"""Minorising and maximising: J never falls, the guarantees are kept, and each step is the best of its bound."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import ACTIONS, HORIZON, STATES

from jumar.errors import UsageError
from jumar.lab import bounds, improvement, minorise, tabular
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

OLD = Categorical(np.asarray(processes.random_policy(20).logits, np.float64))  # type: ignore[arg-type]
KINDS = [
    (None, 0.8, "max", False),
    (None, 0.8, "max", True),
    (HORIZON, 1.0, "max", False),
    (None, 0.8, "mean", False),
    (None, 0.8, "mean", True),
]


def process(horizon: int | None, gamma: float) -> TabularMDP:
    return replace(processes.process(horizon), gamma=gamma)


def lower_bounds(mdp: TabularMDP, new: Categorical) -> dict[str, Array]:
    reverse = improvement.surrogate(mdp, OLD, new) - improvement.max_kl_constant(mdp, OLD) * improvement.max_kl(
        new, OLD
    )
    return {
        "max False": bounds.max_kl_bounds(mdp, OLD, new).lower,
        "max True": reverse,
        "mean False": improvement.mean_kl_bound(mdp, OLD, new),
        "mean True": improvement.mean_kl_bound(mdp, OLD, new, reverse=True),
        "surrogate": improvement.surrogate(mdp, OLD, new),
        "mean": improvement.mean_kl(mdp, OLD, new),
    }


many = jax.jit(jax.vmap(lower_bounds, in_axes=(None, 0)))


@pytest.mark.parametrize(("horizon", "gamma", "penalty", "reverse"), KINDS)
def test_performance_never_falls_and_gains_at_least_what_is_guaranteed(
    horizon: int | None, gamma: float, penalty: str, reverse: bool
) -> None:
    found = minorise.minorise_maximise(process(horizon, gamma), OLD, 5, penalty, reverse)
    assert np.all(found.guaranteed > 1e-4)
    assert np.all(found.gained >= found.guaranteed)
    np.testing.assert_allclose(np.diff(found.performance), found.gained, rtol=1e-12)
    last = Categorical(jnp.asarray(found.log_probs[-1]))
    np.testing.assert_allclose(found.performance[-1], tabular.performance(process(horizon, gamma), last), rtol=1e-10)


@pytest.mark.parametrize(("horizon", "gamma", "penalty", "reverse"), KINDS)
def test_no_policy_has_a_larger_bound(horizon: int | None, gamma: float, penalty: str, reverse: bool) -> None:
    """Of 4000 around the old policy and around the answer."""
    mdp = process(horizon, gamma)
    found = minorise.minorise_maximise(mdp, OLD, 1, penalty, reverse)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2_000, STATES, ACTIONS)) * 10.0 ** rng.uniform(-4.0, 0.0, (2_000, 1, 1))
    around = np.concatenate([found.log_probs[1] + noise, found.log_probs[0] + noise, found.log_probs[1:]])
    values = np.asarray(many(mdp, Categorical(jnp.asarray(around)))[f"{penalty} {reverse}"])
    np.testing.assert_allclose(values[-1], found.guaranteed[0], rtol=1e-9)
    assert values[:-1].max() <= found.guaranteed[0] * (1.0 + 1e-9)
    assert values[:-1].max() > 0.99 * found.guaranteed[0]


def test_the_mean_divergence_allows_longer_steps_than_the_largest() -> None:
    by_max, by_mean = (minorise.minorise_maximise(process(None, 0.8), OLD, 3, penalty) for penalty in ("max", "mean"))
    assert np.all(by_mean.guaranteed > 2.0 * by_max.guaranteed)
    assert by_mean.performance[-1] > by_max.performance[-1]


def test_one_state_by_hand() -> None:
    """A fair coin, A = +-1/2, gamma 1/2: L = 2 (p - 1/2), C = 4, so 2 = 4 (p - 1/2) / (p (1 - p)): p = (-1 + 5^.5) / 2."""
    mdp = TabularMDP.of([[[1.0], [1.0]]], [[1.0, 0.0]], [1.0], gamma=0.5)
    found = minorise.minorise_maximise(mdp, Categorical(jnp.zeros((1, 2))), 1)
    p = (np.sqrt(5.0) - 1.0) / 2.0
    np.testing.assert_allclose(np.exp(found.log_probs[1, 0, 0]), p, rtol=1e-10)
    kl = -0.5 * np.log(4.0 * p * (1.0 - p))
    np.testing.assert_allclose(found.guaranteed[0], 2.0 * (p - 0.5) - 4.0 * kl, rtol=1e-9)
    np.testing.assert_allclose(found.gained[0], 2.0 * (p - 0.5), rtol=1e-9)  # with one state, L is the gain
    np.testing.assert_allclose(found.divergences[0], kl, rtol=1e-9)


# -- a constant times the root ------------------------------------------------------------------------------------------


def test_a_root_with_a_constant_has_the_best_policy_where_it_is_flatter_than_the_surrogate() -> None:
    mdp, rng = process(None, 0.8), np.random.default_rng(1)
    constant = 2.0
    found = minorise.root_penalised(mdp, OLD, constant)
    # The derivative of C sqrt(KL) is that of the surrogate.
    np.testing.assert_allclose(2.0 * np.sqrt(found.divergence) * found.multiplier, constant, rtol=1e-6)
    score = found.surrogate - constant * np.sqrt(found.divergence)
    noise = rng.standard_normal((4_000, STATES, ACTIONS)) * 10.0 ** rng.uniform(-4.0, 0.0, (4_000, 1, 1))
    others = many(mdp, Categorical(jnp.asarray(np.asarray(found.policy.logits) + noise)))
    values = np.asarray(others["surrogate"] - constant * jnp.sqrt(others["mean"]))
    assert 0.99 * score < values.max() <= score


def test_a_root_with_a_larger_constant_keeps_the_old_policy() -> None:
    """The limit is sqrt 2 sigma, sigma^2 = sum rho^2 pi A^2 / d: only below it is a small change worth its penalty."""
    mdp = process(None, 0.8)
    visits, worth = np.asarray(tabular.visitation(mdp, OLD)), np.asarray(tabular.advantages(mdp, OLD))
    shares = visits**2 / np.asarray(tabular.state_distribution(mdp, OLD))
    limit = np.sqrt(2.0 * np.sum(shares[:, None] * np.asarray(OLD.probs) * worth**2))
    kept = minorise.root_penalised(mdp, OLD, 1.5 * limit)
    assert (kept.surrogate, kept.divergence, kept.multiplier) == (0.0, 0.0, np.inf)
    np.testing.assert_allclose(kept.policy.logits, OLD.log_probs, rtol=1e-12)
    assert minorise.root_penalised(mdp, OLD, 0.9 * limit).surrogate > 0.0


def test_the_largest_bound_is_the_first_step_of_the_ascent() -> None:
    mdp = process(None, 0.8)
    found = minorise.bound_maximum(mdp, OLD)
    step = minorise.minorise_maximise(mdp, OLD, 1, "mean")
    np.testing.assert_allclose(found.policy.logits, step.log_probs[1], rtol=1e-12)


def test_where_there_is_nothing_to_gain_the_policy_stays() -> None:
    mdp = replace(process(None, 0.8), rewards=np.zeros((STATES, ACTIONS)))
    for penalty in minorise.PENALTIES:
        found = minorise.minorise_maximise(mdp, OLD, 2, penalty)
        np.testing.assert_array_equal(found.guaranteed, 0.0)
        np.testing.assert_allclose(found.log_probs[2], found.log_probs[0], atol=1e-12)


def test_mistakes_are_named() -> None:
    mdp = process(None, 0.8)
    with pytest.raises(UsageError, match="n=0 must be at least 1"):
        minorise.minorise_maximise(mdp, OLD, 0)
    with pytest.raises(UsageError, match="penalty='mode' is unknown; it must be one of max, mean"):
        minorise.minorise_maximise(mdp, OLD, 1, "mode")
    with pytest.raises(UsageError, match="horizon=6"):
        minorise.minorise_maximise(process(HORIZON, 0.8), OLD, 1, "mean")
    with pytest.raises(UsageError, match=r"gamma=0\.0 and horizon=None"):
        minorise.minorise_maximise(process(None, 0.0), OLD, 1)
    with pytest.raises(UsageError, match=r"constant=-1\.0 must be above 0"):
        minorise.root_penalised(mdp, OLD, -1.0)
