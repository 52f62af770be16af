"""What a new policy gains: the lemma, the surrogate, and bounds that hold, on random processes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import HORIZON, HORIZONS

from jumar.lab import improvement, tabular
from jumar.lab.families import softmax
from jumar.lab.gradients import policy_gradient
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

PAIRS = [(seed, scale) for seed in range(4) for scale in (0.01, 0.3, 3.0)]
"""Which process, and how far the new policy is from the old one."""


def pair(seed: int, scale: float) -> tuple[Categorical, Categorical]:
    old = processes.random_policy(seed + 20)
    return old, Categorical(old.logits + processes.random_policy(seed + 40, scale).logits)


@jax.jit
def compare(mdp: TabularMDP, old: Categorical, new: Categorical) -> dict[str, Array]:
    return {
        "gain": tabular.performance(mdp, new) - tabular.performance(mdp, old),
        "lemma": improvement.performance_difference(mdp, old, new),
        "surrogate": improvement.surrogate(mdp, old, new),
        "mean_kl": improvement.mean_kl(mdp, old, new),
        "max_kl": improvement.max_kl(old, new),
        "max_kl_bound": improvement.max_kl_bound(mdp, old, new),
        "mean_kl_bound": improvement.mean_kl_bound(mdp, old, new),
    }


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
@pytest.mark.parametrize(("seed", "scale"), PAIRS)
def test_the_performance_difference_lemma_is_exact(horizon: int | None, seed: int, scale: float) -> None:
    found = compare(processes.process(horizon, seed), *pair(seed, scale))
    np.testing.assert_allclose(found["lemma"], found["gain"], rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_without_the_discount_the_lemma_is_wrong(seed: int) -> None:
    """As equation 12.14 of the book prints it: a plain sum over the steps."""
    mdp, (old, new) = processes.process(HORIZON, seed), pair(seed, 0.3)
    visits = tabular.occupancies(mdp, new, HORIZON)[..., None] * new.probs
    printed = jnp.sum(visits * tabular.advantages(mdp, old))
    gain = compare(mdp, old, new)["gain"]
    assert abs(printed - gain) > 0.05 * abs(gain)


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
@pytest.mark.parametrize(("seed", "scale"), PAIRS)
def test_divergences_taken_from_the_surrogate_bound_the_gain_from_below(
    horizon: int | None, seed: int, scale: float
) -> None:
    found = compare(processes.process(horizon, seed), *pair(seed, scale))
    assert found["max_kl_bound"] <= found["gain"]
    assert found["mean_kl_bound"] <= found["gain"]
    assert 0.0 < found["mean_kl"] <= found["max_kl"]


@pytest.mark.parametrize(("seed", "scale"), PAIRS)
def test_the_divergence_added_to_the_surrogate_bounds_nothing_from_below(seed: int, scale: float) -> None:
    """As one set of slides prints it, three times: L + C max KL."""
    found = compare(processes.process(None, seed), *pair(seed, scale))
    printed = 2.0 * found["surrogate"] - found["max_kl_bound"]
    assert printed > found["gain"]


def test_the_mean_divergence_without_its_root_bounds_nothing() -> None:
    """As other slides print it; for near policies the penalty is then of the third order, and the error of the second."""
    refuted = 0
    for seed in range(4):
        found = compare(processes.process(None, seed), *pair(seed, 0.01))
        penalty = (found["surrogate"] - found["mean_kl_bound"]) / np.sqrt(found["mean_kl"])
        refuted += int(found["surrogate"] - penalty * found["mean_kl"] > found["gain"])
    assert refuted >= 1


def test_a_policy_gains_nothing_on_itself() -> None:
    old, _ = pair(0, 0.0)
    for name, number in compare(processes.process(None), old, old).items():
        np.testing.assert_allclose(number, 0.0, atol=1e-13, err_msg=name)


def test_the_constant_of_the_bound_by_hand() -> None:
    """One state, actions worth 1 and 0, gamma 1/2: A = +-1/2, C = 4 (1/2) (1/2) / (1/4) = 4."""
    mdp = TabularMDP.of([[[1.0], [1.0]]], [[1.0, 0.0]], [1.0], gamma=0.5)
    old, new = Categorical(jnp.zeros((1, 2))), Categorical(jnp.log(jnp.array([[0.75, 0.25]])))
    kl = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    np.testing.assert_allclose(improvement.surrogate(mdp, old, new), 2.0 * (0.75 * 0.5 - 0.25 * 0.5), rtol=1e-12)
    np.testing.assert_allclose(improvement.max_kl(old, new), kl, rtol=1e-12)
    np.testing.assert_allclose(improvement.max_kl_bound(mdp, old, new), 0.5 - 4.0 * kl, rtol=1e-12)
    # Its epsilon is |E_new A| = 1/4, so C = sqrt 2 (1/2) (1/4) / (1/4).
    np.testing.assert_allclose(
        improvement.mean_kl_bound(mdp, old, new), 0.5 - np.sqrt(2.0) * 0.5 * np.sqrt(kl), rtol=1e-12
    )


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_the_surrogate_has_the_gradient_of_the_performance_and_its_error_is_of_second_order(
    horizon: int | None,
) -> None:
    mdp, flat = processes.process(horizon), processes.parameters(12)
    family = softmax(mdp)
    slope = jax.grad(lambda x: improvement.surrogate(mdp, family(flat), family(x)))(flat)
    np.testing.assert_allclose(slope, policy_gradient(mdp, family, flat), rtol=1e-9, atol=1e-13)
    way = processes.parameters(12, seed=6)
    errors = []
    for size in (1e-2, 1e-3):
        found = compare(mdp, family(flat), family(flat + size * way))
        errors.append(abs(found["gain"] - found["surrogate"]))
    assert 1.9 < np.log10(errors[0] / errors[1]) < 2.1


def test_what_raises_the_bound_raises_the_performance() -> None:
    """A step along the gradient that is short enough for the bound to be positive is sure to be an improvement."""
    mdp, flat = processes.process(None), processes.parameters(12)
    family = softmax(mdp)
    way = policy_gradient(mdp, family, flat)
    bounds, gains = [], []
    for size in np.geomspace(1e-5, 10.0, 13):
        found = compare(mdp, family(flat), family(flat + size * way))
        bounds.append(float(found["max_kl_bound"]))
        gains.append(float(found["gain"]))
    best = int(np.argmax(bounds))
    assert 0.0 < bounds[best] <= gains[best]
    assert bounds[-1] < 0.0  # so the best step is a short one, whatever the gain of a long one
