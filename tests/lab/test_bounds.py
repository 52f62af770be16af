"""Bounds of the gain from both sides: by hand on a literal process, and on random ones, with and without an end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import HORIZON

from jumar.errors import UsageError
from jumar.lab import bounds, improvement, tabular
from jumar.lab.bounds import Bounds
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

KINDS = {"endless": (None, 0.8), "six steps": (HORIZON, 0.8), "six steps without discount": (HORIZON, 1.0)}
PAIRS = [(seed, scale) for seed in range(3) for scale in (0.01, 0.3, 3.0)]


def case(kind: str, seed: int, scale: float) -> tuple[TabularMDP, Categorical, Categorical]:
    horizon, gamma = KINDS[kind]
    old = processes.random_policy(seed + 20)
    new = Categorical(old.logits + processes.random_policy(seed + 40, scale).logits)
    return replace(processes.process(horizon, seed), gamma=gamma), old, new


@jax.jit
def compare(mdp: TabularMDP, old: Categorical, new: Categorical) -> dict[str, Any]:
    length = mdp.horizon or 30
    return {
        "gain": tabular.performance(mdp, new) - tabular.performance(mdp, old),
        "lemma": improvement.performance_difference(mdp, old, new),
        "surrogate": improvement.surrogate(mdp, old, new),
        "max_kl": bounds.max_kl_bounds(mdp, old, new),
        "max_tv": bounds.max_tv_bounds(mdp, old, new),
        "mean_kl": bounds.mean_kl_bounds(mdp, old, new),
        "reverse": bounds.mean_kl_bounds(mdp, old, new, reverse=True),
        "mean_tv": bounds.mean_tv_bounds(mdp, old, new),
        "mismatch": bounds.mismatch_bounds(mdp, old, new),
        "shift": bounds.state_shift(mdp, old, new, length),
        "shift_bound": bounds.state_shift_bound(old, new, length),
        "tv": bounds.total_variation(old, new),
        "mean_variation": bounds.mean_total_variation(mdp, old, new),
        "kls": jnp.stack([old.kl(new), new.kl(old)]),
        "lower": jnp.stack([improvement.max_kl_bound(mdp, old, new), improvement.mean_kl_bound(mdp, old, new)]),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "scale"), PAIRS)
def test_every_bound_holds_from_both_sides(kind: str, seed: int, scale: float) -> None:
    found = compare(*case(kind, seed, scale))
    gain = found["gain"]
    np.testing.assert_allclose(found["lemma"], gain, rtol=1e-8, atol=1e-13)
    for name in ("max_kl", "max_tv", "mean_kl", "reverse", "mean_tv", "mismatch"):
        pair: Bounds = found[name]
        assert pair.lower <= gain <= pair.upper, name
        np.testing.assert_allclose(0.5 * (pair.lower + pair.upper), found["surrogate"], atol=1e-10)
    np.testing.assert_allclose(found["lower"], [found["max_kl"].lower, found["mean_kl"].lower], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "scale"), PAIRS)
def test_total_variation_is_at_most_what_the_divergences_say(kind: str, seed: int, scale: float) -> None:
    found = compare(*case(kind, seed, scale))
    tv, slack = found["tv"], 1e-12
    assert np.all(tv <= bounds.pinsker(found["kls"]) + slack)
    assert 0.0 < float(found["mean_variation"]) <= float(tv.max()) <= 1.0
    assert found["max_tv"].lower >= found["max_kl"].lower - slack
    assert found["mean_tv"].lower >= max(found["mean_kl"].lower, found["reverse"].lower) - slack
    assert np.all(found["shift"] <= found["shift_bound"] + slack)
    assert float(found["shift"].max()) > 0.0


def test_the_penalties_are_of_second_order_and_the_printed_one_is_not() -> None:
    """Halving a change quarters what is taken off; without the scale of the advantages it would only be halved."""
    mdp, old, new = case("six steps", 0, 0.02)
    half = Categorical(old.logits + 0.5 * (new.logits - old.logits))
    for name in ("max_kl", "max_tv", "mean_kl", "mean_tv", "mismatch"):
        wide, narrow = (compare(mdp, old, x)[name] for x in (new, half))
        assert (wide.upper - wide.lower) / (narrow.upper - narrow.lower) == pytest.approx(4.0, rel=0.05), name
    losses = [compare(mdp, old, x)["surrogate"] - bounds.printed_mismatch_bound(mdp, old, x) for x in (new, half)]
    assert losses[0] / losses[1] == pytest.approx(2.0, rel=0.05)


def test_one_state_by_hand() -> None:
    """Actions worth 1 and 0, gamma 1/2: A = +-1/2, TV = 1/4, E_new A = 1/4, L = 1/2; no state can differ."""
    mdp = TabularMDP.of([[[1.0], [1.0]]], [[1.0, 0.0]], [1.0], gamma=0.5)
    old, new = Categorical(jnp.zeros((1, 2))), Categorical(jnp.log(jnp.array([[0.75, 0.25]])))
    assert float(bounds.max_total_variation(old, new)) == pytest.approx(0.25)
    np.testing.assert_allclose(bounds.pinsker(jnp.array([0.5, 2.0])), [0.5, 1.0])
    # gamma / (1 - gamma)^2 = 2: 4 (1/2) 2 / 16, then 2 (1/4) (1/4) 2 twice over.
    for bound, penalty in ((bounds.max_tv_bounds, 0.25), (bounds.mean_tv_bounds, 0.25), (bounds.mismatch_bounds, 0.25)):
        np.testing.assert_allclose(bound(mdp, old, new), [0.5 - penalty, 0.5 + penalty], rtol=1e-12)
    np.testing.assert_allclose(bounds.state_shift(mdp, old, new, 3), 0.0, atol=1e-15)


# -- the literal example ------------------------------------------------------------------------------------------------


def test_the_example_of_four_steps_by_hand() -> None:
    mdp, old, new = bounds.mismatch_example(scale=100.0)
    np.testing.assert_allclose(tabular.performance(mdp, old), 106.25, rtol=1e-12)
    np.testing.assert_allclose(tabular.performance(mdp, new), 95.04, rtol=1e-12)
    np.testing.assert_allclose(improvement.performance_difference(mdp, old, new), -11.21, rtol=1e-12)
    np.testing.assert_allclose(improvement.surrogate(mdp, old, new), -7.5, rtol=1e-12)
    np.testing.assert_allclose(bounds.state_shift(mdp, old, new, 4), [0.0, 0.2, 0.18, 0.122], atol=1e-12)
    np.testing.assert_allclose(bounds.state_shift_bound(old, new, 4), [0.0, 0.2, 0.4, 0.6], atol=1e-12)
    np.testing.assert_allclose(bounds.mismatch_bounds(mdp, old, new), [-19.5, 4.5], rtol=1e-10)


def test_the_mismatch_bound_as_printed_is_refuted_by_large_rewards() -> None:
    """It takes off 2 (0.1) 16 = 3.2, whatever the rewards are; the states cost 3.71 hundredths of their scale."""
    for scale, holds in ((86.0, True), (87.0, False), (1e4, False)):
        mdp, old, new = bounds.mismatch_example(scale)
        gain = float(improvement.performance_difference(mdp, old, new))
        printed = float(bounds.printed_mismatch_bound(mdp, old, new))
        assert printed == pytest.approx(-0.075 * scale - 3.2)
        assert (gain >= printed) is holds
        assert gain >= float(bounds.mismatch_bounds(mdp, old, new).lower)


def test_the_divergence_has_to_be_taken_off_and_not_added() -> None:
    r"""With :math:`C = 4 \cdot 50 \cdot 6` and :math:`\max KL = \frac12 \log(25/24)`: -11.21 is between -31.99 and 16.99."""
    mdp, old, new = bounds.mismatch_example(scale=100.0)
    lower, upper = bounds.max_kl_bounds(mdp, old, new)
    penalty = 1200.0 * 0.5 * np.log(25.0 / 24.0)
    np.testing.assert_allclose([lower, upper], [-7.5 - penalty, -7.5 + penalty], rtol=1e-10)
    gain = float(improvement.performance_difference(mdp, old, new))
    assert lower <= gain
    assert not upper <= gain  # what slides print as a lower bound


def test_small_differences_of_many_probabilities_are_no_small_variation() -> None:
    actions = 50
    old = Categorical(jnp.where(jnp.arange(actions) < actions // 2, 0.0, -40.0)[None])
    new = Categorical(jnp.flip(old.logits, -1))
    assert float(jnp.max(jnp.abs(old.probs - new.probs))) < 0.041
    assert float(bounds.max_total_variation(old, new)) == pytest.approx(1.0)


# -- edges --------------------------------------------------------------------------------------------------------------


def test_with_one_step_there_is_nothing_to_take_off() -> None:
    mdp, old, new = case("six steps", 0, 3.0)
    mdp = replace(mdp, horizon=1)
    gain = tabular.performance(mdp, new) - tabular.performance(mdp, old)
    found: list[Array] = [
        *bounds.max_kl_bounds(mdp, old, new),
        *bounds.mean_tv_bounds(mdp, old, new),
        *bounds.mismatch_bounds(mdp, old, new),
    ]
    np.testing.assert_allclose(found, np.full(6, gain), rtol=1e-10)


def test_a_process_without_end_needs_a_discount() -> None:
    mdp, old, new = case("endless", 0, 0.3)
    with pytest.raises(UsageError, match=r"gamma=1\.0 must be below 1"):
        improvement.max_kl_constant(replace(mdp, gamma=1.0), old)
    with pytest.raises(UsageError, match="below 1"):
        bounds.mismatch_bounds(replace(mdp, gamma=1.0), old, new)
