"""Action distributions against scipy, enumeration, quadrature and automatic differentiation."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from compiling import compiled_as_ever
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import Array
from jax.flatten_util import ravel_pytree
from scipy.special import log_softmax, logsumexp

from jumar.policies.distributions import FORBIDDEN, Bernoulli, Categorical, DiagGaussian, MultiCategorical, mask_logits

KEY = jax.random.PRNGKey(0)


def normals(seed: int, *shape: int) -> np.ndarray:
    """Return float64 normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape)


def discrete(kind: str, seed: int) -> Any:
    """Return a discrete distribution in whichever precision is on; ``masked`` has actions that are forbidden."""
    if kind == "categorical":
        return Categorical(jnp.asarray(normals(seed, 5)))
    if kind == "masked":
        return Categorical(jnp.asarray(np.where([True, False, True, True, False], normals(seed, 5), FORBIDDEN)))
    if kind == "multi_categorical":
        logits = normals(seed, 2, 3)
        logits[1, 2] = FORBIDDEN  # the second choice has two options only
        return MultiCategorical(jnp.asarray(logits))
    return Bernoulli(jnp.asarray(normals(seed, 3)))


DISCRETE = ("categorical", "masked", "multi_categorical", "bernoulli")


def support(distribution: Any) -> Array:
    """Return all actions of a discrete distribution, the forbidden ones too."""
    if isinstance(distribution, Categorical):
        return jnp.arange(distribution.logits.shape[-1])
    if isinstance(distribution, MultiCategorical):
        choices, options = distribution.logits.shape
        return jnp.array(list(itertools.product(range(options), repeat=choices)))
    return jnp.array(list(itertools.product((0, 1), repeat=distribution.logits.shape[-1])))


def gaussian(seed: int, n: int = 2) -> DiagGaussian:
    return DiagGaussian(jnp.asarray(normals(seed, n)), jnp.asarray(0.5 * normals(seed + 100, n)))


def quadrature(distribution: DiagGaussian) -> tuple[Array, Array]:
    """Return actions and weights that integrate polynomials of degree 19 in each part exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(10)
    weights = weights / weights.sum()
    n = distribution.mean.shape[-1]
    grid = np.array(list(itertools.product(nodes, repeat=n)))
    mass = np.array([np.prod(row) for row in itertools.product(weights, repeat=n)])
    return distribution.mean + distribution.std * grid, jnp.asarray(mass)


def expectation(distribution: Any) -> tuple[Array, Array]:
    """Return actions and probabilities: an exact expectation for every distribution here."""
    if isinstance(distribution, DiagGaussian):
        return quadrature(distribution)
    actions = support(distribution)
    return actions, jnp.exp(jax.vmap(distribution.log_prob)(actions))


def make(kind: str, seed: int) -> Any:
    return gaussian(seed) if kind == "gaussian" else discrete(kind, seed)


ALL = (*DISCRETE, "gaussian")


@jax.jit
def compute_exactly(first: Any, second: Any) -> dict[str, Array]:
    """Compute by enumeration (or quadrature) what a distribution has, and what it says itself."""
    flat, unravel = ravel_pytree(first)
    actions, probabilities = expectation(first)
    log_probs = jax.vmap(first.log_prob)(actions)
    scores = jax.vmap(lambda a: jax.grad(lambda x: unravel(x).log_prob(a))(flat))(actions)
    product = jax.vmap(lambda v: ravel_pytree(first.fisher_product(unravel(v)))[0])(jnp.eye(flat.size))
    return {
        "total": probabilities.sum(),
        "entropy": first.entropy(),
        "mean surprise": -probabilities @ log_probs,
        "kl": first.kl(second),
        "mean log ratio": probabilities @ (log_probs - jax.vmap(second.log_prob)(actions)),
        "reverse kl": second.kl(first),
        "kl to itself": first.kl(first),
        "mean score": probabilities @ scores,
        "fisher product": product.T,
        "mean outer product": jnp.einsum("k,ki,kj->ij", probabilities, scores, scores),
        "hessian of kl": jax.hessian(lambda x: first.kl(unravel(x)))(flat),
        "likeliest": log_probs.max(),
        "mode": first.log_prob(first.mode()),
    }


@functools.cache
def exact(kind: str) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        return {name: np.asarray(x) for name, x in compute_exactly(make(kind, 12), make(kind, 13)).items()}


# -- log-probabilities ------------------------------------------------------------------------------------------------


def test_categorical_log_prob_is_scipys_log_softmax() -> None:
    logits = normals(1, 4, 3, 5).astype(np.float32)
    actions = np.random.default_rng(2).integers(0, 5, (4, 3))
    expected = np.take_along_axis(log_softmax(logits.astype(float), axis=-1), actions[..., None], -1)[..., 0]
    result = Categorical(jnp.asarray(logits)).log_prob(jnp.asarray(actions))
    assert result.shape == (4, 3)
    np.testing.assert_allclose(result, expected, rtol=2e-6)
    np.testing.assert_allclose(Categorical(jnp.asarray(logits)).probs.sum(-1), 1.0, rtol=1e-6)


def test_multi_categorical_log_prob_is_the_sum_of_its_choices() -> None:
    logits = normals(3, 7, 2, 4).astype(np.float32)
    actions = np.random.default_rng(4).integers(0, 4, (7, 2))
    each = np.take_along_axis(log_softmax(logits.astype(float), axis=-1), actions[..., None], -1)[..., 0]
    result = MultiCategorical(jnp.asarray(logits)).log_prob(jnp.asarray(actions))
    np.testing.assert_allclose(result, each.sum(-1), rtol=2e-6)


def test_bernoulli_log_prob_is_scipys() -> None:
    logits = normals(5, 6, 3).astype(np.float32)
    actions = np.random.default_rng(6).integers(0, 2, (6, 3))
    expected = scipy.stats.bernoulli.logpmf(actions, 1 / (1 + np.exp(-logits.astype(float)))).sum(-1)
    np.testing.assert_allclose(Bernoulli(jnp.asarray(logits)).log_prob(jnp.asarray(actions)), expected, rtol=2e-6)


def test_gaussian_log_prob_is_scipys() -> None:
    mean, log_std, actions = normals(7, 6, 3), normals(8, 6, 3), normals(9, 6, 3)
    expected = scipy.stats.norm.logpdf(actions, mean, np.exp(log_std)).sum(-1)
    result = DiagGaussian(jnp.float32(mean), jnp.float32(log_std)).log_prob(jnp.float32(actions))
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", DISCRETE)
def test_probabilities_of_all_actions_sum_to_one(kind: str) -> None:
    assert exact(kind)["total"] == pytest.approx(1.0, abs=1e-12)


def test_gaussian_density_integrates_to_one() -> None:
    with jax.enable_x64(True):
        distribution = DiagGaussian(jnp.array([0.7]), jnp.array([-0.4]))
        grid = jnp.linspace(-8.0, 8.0, 4001)[:, None]
        density = jnp.exp(jax.vmap(distribution.log_prob)(grid))
        assert float(jnp.trapezoid(density, grid[:, 0])) == pytest.approx(1.0, abs=1e-10)


# -- entropy and divergence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_entropy_is_minus_the_mean_log_probability(kind: str) -> None:
    assert exact(kind)["entropy"] == pytest.approx(exact(kind)["mean surprise"], abs=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_kl_is_the_mean_log_ratio_under_the_first_distribution(kind: str) -> None:
    result = exact(kind)
    assert result["kl"] == pytest.approx(result["mean log ratio"], abs=1e-12)
    assert result["kl"] > 1e-3
    assert abs(result["kl"] - result["reverse kl"]) > 1e-3, "these two tell the directions apart"
    assert result["kl to itself"] == 0.0


def test_kl_of_exercise_12_3() -> None:
    old = jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.6, 0.2]]))
    new = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.5, 0.3]]))
    states = jnp.array([0, 1, 0, 0, 1])
    np.testing.assert_allclose(Categorical(old).kl(Categorical(new)), [0.456435, 0.028300], atol=1e-6)
    assert float(Categorical(old[states]).kl(Categorical(new[states])).mean()) == pytest.approx(0.285181, abs=1e-6)
    assert float(Categorical(new[states]).kl(Categorical(old[states])).mean()) == pytest.approx(0.286052, abs=1e-6)


def test_kl_literals_tell_its_direction() -> None:
    narrow, wide = DiagGaussian(jnp.zeros(1), jnp.zeros(1)), DiagGaussian(jnp.ones(1), jnp.log(jnp.full(1, 2.0)))
    assert float(narrow.kl(wide)) == pytest.approx(0.443147, abs=1e-6)  # ln 2 + (1 + 1) / 8 - 1/2
    assert float(wide.kl(narrow)) == pytest.approx(1.306853, abs=1e-6)  # -ln 2 + (4 + 1) / 2 - 1/2
    even, quarter = Bernoulli(jnp.zeros(1)), Bernoulli(jnp.log(jnp.full(1, 1 / 3)))
    assert float(even.kl(quarter)) == pytest.approx(0.143841, abs=1e-6)  # (ln 2 + ln 2/3) / 2
    assert float(quarter.kl(even)) == pytest.approx(0.130812, abs=1e-6)  # (ln 1/2 + 3 ln 3/2) / 4


def test_gaussian_kl_by_monte_carlo() -> None:
    first, second = (
        DiagGaussian(jnp.float32(x.mean), jnp.float32(x.log_std)) for x in (gaussian(14, 3), gaussian(15, 3))
    )

    @jax.jit
    def log_ratios() -> Array:
        actions = jax.tree.map(lambda x: jnp.broadcast_to(x, (100_000, 3)), first).sample(KEY)
        return first.log_prob(actions) - second.log_prob(actions)

    ratios = np.asarray(log_ratios())
    deviation = ratios.std() / np.sqrt(len(ratios))
    assert float(first.kl(second)) == pytest.approx(ratios.mean(), abs=4 * deviation)


def test_tiny_gaussian_kl_keeps_its_digits_in_float32() -> None:
    # KL = x^2 for a log deviation that differs by x (to second order), far below float32's epsilon of 1.
    x = 1e-3
    p, q = DiagGaussian(jnp.zeros(1), jnp.zeros(1)), DiagGaussian(jnp.zeros(1), jnp.full(1, x))
    assert float(p.kl(q)) == pytest.approx(x + 0.5 * np.expm1(-2 * x), rel=1e-3)


@jax.jit
def categorical_kl_and_entropy(first: Array, second: Array) -> tuple[Array, Array]:
    return Categorical(first).kl(Categorical(second)), Categorical(first).entropy()


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=5, max_size=5))
@settings(max_examples=50, deadline=None)
def test_kl_is_not_negative_and_entropy_lies_between_zero_and_log_n(pairs: list[tuple[float, float]]) -> None:
    kl, entropy = categorical_kl_and_entropy(*(np.array([pair[i] for pair in pairs], np.float32) for i in (0, 1)))
    assert float(kl) >= -2e-6  # round-off of float32
    assert -1e-6 <= float(entropy) <= np.log(5) + 1e-6


# -- Fisher information -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_fisher_product_is_the_mean_outer_product_of_scores_and_the_hessian_of_kl(kind: str) -> None:
    result = exact(kind)
    np.testing.assert_allclose(result["mean score"], 0.0, atol=1e-12)
    np.testing.assert_allclose(result["fisher product"], result["mean outer product"], atol=1e-10)
    np.testing.assert_allclose(result["fisher product"], result["hessian of kl"], atol=1e-10)
    assert np.abs(result["fisher product"]).max() > 0.01


def test_fisher_of_the_bernoulli_example() -> None:
    # Document 002, example 4.6.1: F = e^t / (1 + e^t)^2.
    distribution = Bernoulli(jnp.array([[0.0], [5.0]]))
    np.testing.assert_allclose(
        distribution.fisher_product(Bernoulli(jnp.ones((2, 1)))).logits, [[0.25], [0.006648]], atol=1e-6
    )


def test_scores_of_example_12_1() -> None:
    # Document 000: theta = [0, 1], scores (a - m) / s^2 and ((a - m)^2 - s^2) / s^3, summed over a rollout.
    rollouts = jnp.array([[-0.532, 0.597, 1.947], [-0.263, -2.212, 2.364]])

    def total(theta: Array, actions: Array) -> Array:
        mean, std = theta
        each = DiagGaussian(jnp.broadcast_to(mean, (3, 1)), jnp.broadcast_to(jnp.log(std), (3, 1)))
        return each.log_prob(actions[:, None]).sum()

    scores = jax.jit(jax.vmap(jax.grad(total), (None, 0)))(jnp.array([0.0, 1.0]), rollouts)
    np.testing.assert_allclose(scores, [[2.012, 1.430242], [-0.111, 7.550609]], atol=2e-6)


# -- masks ------------------------------------------------------------------------------------------------------------


@jax.jit
def everything(logits: Array, others: Array, mask: Array, tangent: Array) -> dict[str, Array]:
    """Compute all that a masked distribution has, and the gradients of it."""

    def numbers(logits: Array) -> dict[str, Array]:
        p, q = Categorical(mask_logits(logits, mask)), Categorical(mask_logits(others, mask))
        allowed = jnp.argmax(mask)
        return {"entropy": p.entropy(), "kl": p.kl(q), "reverse": q.kl(p), "log_prob": p.log_prob(allowed)}

    p = Categorical(mask_logits(logits, mask))
    gradients = {f"gradient of {name}": value for name, value in jax.jacobian(numbers)(logits).items()}
    fisher = p.fisher_product(Categorical(tangent)).logits
    samples = jax.vmap(p.sample)(jax.random.split(KEY, 64))
    return numbers(logits) | gradients | {"probs": p.probs, "fisher": fisher, "samples": samples, "mode": p.mode()}


@given(
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.lists(st.floats(-1e4, 1e4), min_size=5, max_size=5),
    st.lists(st.floats(-1e4, 1e4), min_size=5, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_a_masked_action_never_happens_and_leaves_no_nan(
    mask: list[bool], logits: list[float], others: list[float]
) -> None:
    assume(any(mask))
    allowed = np.array(mask)
    result = everything(jnp.float32(logits), jnp.float32(others), jnp.asarray(allowed), jnp.float32(others))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in result.values()), result
    assert np.all(np.asarray(result["probs"])[~allowed] == 0.0)
    assert np.all(np.asarray(result["fisher"])[~allowed] == 0.0)
    for name, value in result.items():
        if name.startswith("gradient"):
            assert np.all(np.asarray(value)[~allowed] == 0.0), name
    assert allowed[np.asarray(result["samples"])].all()
    assert allowed[int(result["mode"])]
    assert -1e-6 <= float(result["entropy"]) <= np.log(allowed.sum()) + 1e-6


def test_the_only_allowed_action_is_certain() -> None:
    mask = jnp.array([False, False, True, False])
    p = Categorical(mask_logits(jnp.array([5.0, 1.0, -3.0, 2.0]), mask))
    q = Categorical(mask_logits(jnp.array([0.0, 0.0, 4.0, 0.0]), mask))
    np.testing.assert_array_equal(p.probs, [0.0, 0.0, 1.0, 0.0])
    assert (float(p.entropy()), float(p.kl(q)), float(p.log_prob(jnp.int32(2)))) == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(p.fisher_product(q).logits, np.zeros(4))


def test_a_mask_leaves_the_odds_of_allowed_actions_as_they_were() -> None:
    logits = jnp.float32(normals(18, 5))
    mask = jnp.array([True, False, True, True, False])
    free, masked = Categorical(logits).probs, Categorical(mask_logits(logits, mask)).probs
    np.testing.assert_allclose(masked[mask], free[mask] / free[mask].sum(), rtol=1e-6)
    np.testing.assert_array_equal(mask_logits(logits, None), logits)


def test_masked_bits_are_certain_and_leave_no_nan() -> None:
    def kl(x: Array) -> Array:
        return Bernoulli(jnp.array([FORBIDDEN, -FORBIDDEN, 0.2])).kl(Bernoulli(jnp.array([FORBIDDEN, -FORBIDDEN, x])))

    p = Bernoulli(jnp.array([FORBIDDEN, -FORBIDDEN, 0.0]))
    assert float(p.entropy()) == pytest.approx(np.log(2))
    assert float(p.log_prob(jnp.array([0, 1, 1]))) == pytest.approx(-np.log(2))
    np.testing.assert_array_equal(p.fisher_product(Bernoulli(jnp.ones(3))).logits, [0.0, 0.0, 0.25])
    assert np.isfinite(jax.jit(jax.grad(kl))(0.7))
    samples = jax.jit(jax.vmap(p.sample))(jax.random.split(KEY, 200))
    np.testing.assert_array_equal(np.unique(np.asarray(samples[:, :2]), axis=0), [[0, 1]])


# -- samples and modes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DISCRETE)
def test_sample_frequencies_are_the_probabilities(kind: str) -> None:
    n = 20_000
    distribution = discrete(kind, 19)
    samples = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), distribution).sample(KEY)
    assert samples.dtype == jnp.int32
    actions, probabilities = expectation(distribution)
    for action, p in zip(np.asarray(actions), np.asarray(probabilities), strict=True):
        matches = np.asarray(samples) == action
        frequency = (matches if matches.ndim == 1 else matches.all(axis=-1)).mean()
        assert frequency == pytest.approx(p, abs=4.5 * float(np.sqrt(p * (1 - p) / n))), action


def test_gaussian_samples_have_its_mean_and_deviation_and_are_independent() -> None:
    n = 20_000
    mean, log_std = jnp.array([1.0, -2.0]), jnp.array([-1.0, 0.5])
    samples = np.asarray(DiagGaussian(jnp.tile(mean, (n, 1)), jnp.tile(log_std, (n, 1))).sample(KEY))
    std = np.exp(log_std)
    np.testing.assert_array_less(np.abs(samples.mean(0) - mean), 4 * std / np.sqrt(n))
    np.testing.assert_array_less(np.abs(samples.std(0) / std - 1), 4 / np.sqrt(2 * n))
    assert abs(np.corrcoef(samples.T)[0, 1]) < 4 / np.sqrt(n)


@pytest.mark.parametrize("kind", ALL)
def test_no_action_is_likelier_than_the_mode(kind: str) -> None:
    assert exact(kind)["mode"] >= exact(kind)["likeliest"] - 1e-12


# -- shapes and extremes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_batch_axes_equal_one_at_a_time(kind: str) -> None:
    def stack(seeds: list[int]) -> Any:
        rows = [make(kind, seed) for seed in seeds]
        return jax.tree.map(lambda *x: np.stack(x).reshape(2, 3, *x[0].shape), *rows)

    def everything(p: Any, q: Any, action: Array) -> tuple[Any, ...]:
        return p.log_prob(action), p.entropy(), p.kl(q), p.fisher_product(q), p.mode()

    @compiled_as_ever
    def both_ways(p: Any, q: Any) -> Any:
        actions = p.sample(KEY)
        return everything(p, q, actions), jax.vmap(jax.vmap(everything))(p, q, actions)

    together, apart = both_ways(stack([1, 2, 3, 4, 5, 6]), stack([7, 8, 9, 10, 11, 12]))
    for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        assert one.shape == other.shape
        assert one.shape[:2] == (2, 3)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["categorical", "multi_categorical", "bernoulli"])
def test_extreme_logits_stay_finite(kind: str) -> None:
    def make_one(logits: Array) -> Any:
        return {
            "categorical": Categorical(logits),
            "multi_categorical": MultiCategorical(jnp.stack([logits, logits])),
            "bernoulli": Bernoulli(logits),
        }[kind]

    def numbers(logits: Array, others: Array) -> dict[str, Array]:
        p, q = make_one(logits), make_one(others)
        likely, unlikely = p.log_prob(p.mode()), p.log_prob(q.mode())
        return {"likely": likely, "unlikely": unlikely, "entropy": p.entropy(), "kl": p.kl(q), "reverse": q.kl(p)}

    @jax.jit
    def compute(logits: Array, others: Array) -> Any:
        fisher = make_one(logits).fisher_product(make_one(others))
        return numbers(logits, others), jax.jacobian(numbers)(logits, others), fisher

    result = compute(jnp.array([1e4, 0.0, -1e4]), jnp.array([-1e4, 1e4, 0.0]))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(result)), result


@pytest.mark.parametrize("log_std", [-20.0, -5.0, 0.0, 5.0])
def test_extreme_deviations_stay_finite_and_exact(log_std: float) -> None:
    p = DiagGaussian(jnp.array([1.0]), jnp.array([log_std]))
    q = DiagGaussian(jnp.array([1.0]), jnp.array([log_std + 1.0]))
    precision = p.fisher_product(DiagGaussian(jnp.ones(1), jnp.ones(1))).mean
    assert float(p.log_prob(p.mean)) == pytest.approx(-log_std - 0.918939, rel=1e-5)
    assert float(p.entropy()) == pytest.approx(log_std + 1.418939, rel=1e-5)
    assert float(p.kl(q)) == pytest.approx(1.0 + (np.exp(-2.0) - 1.0) / 2, rel=1e-5)
    assert float(precision[0]) == pytest.approx(np.exp(-2 * log_std), rel=1e-5)
    gradients = jax.jit(
        lambda p, q: (
            jax.grad(lambda d: d.log_prob(jnp.zeros(1)))(p),
            jax.grad(lambda d: d.kl(q))(p),
            jax.grad(q.kl)(p),
        )
    )(p, q)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradients))


def test_log_prob_normaliser_is_logsumexp_for_large_logits() -> None:
    logits = np.array([1000.0, 1001.0, 999.0])
    expected = logits - logsumexp(logits)
    np.testing.assert_allclose(Categorical(jnp.float32(logits)).log_probs, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_float32_stays_float32_with_64_bit_mode_on(kind: str) -> None:
    def everything(p: Any) -> tuple[Array, ...]:
        action = p.sample(KEY)
        return action, p.mode(), p.log_prob(action), p.entropy(), p.kl(p), *p.fisher_product(p)

    single = jax.tree.map(lambda x: np.asarray(x, np.float32), make(kind, 21))
    with jax.enable_x64(True):
        action, mode, *rest = jax.eval_shape(everything, single)
    assert {x.dtype for x in rest} == {jnp.dtype("float32")}
    assert action.dtype == mode.dtype == (jnp.float32 if kind == "gaussian" else jnp.int32)
