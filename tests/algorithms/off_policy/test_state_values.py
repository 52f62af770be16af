"""What states are worth by critics, by hand and by integrals, and how a policy improves by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces
from jax.flatten_util import ravel_pytree
from replays import RATE, by_gradient, improve, make_update, scattered, scattered_learner, some_rows

from jumar.algorithms.off_policy.improvements import Climbing, Given, Mirroring, Rows
from jumar.algorithms.off_policy.state_values import Expected, FixedCritics, SampledSoftMaximum, SoftMaximum, States
from jumar.algorithms.off_policy.stein import Stein, stein_direction
from jumar.critics.ensemble import First, Least
from jumar.lab.maximum_entropy import maximum_entropy_choice
from jumar.schedules import Constant
from jumar.solvers import Optimiser

KEY = jax.random.PRNGKey(0)
CHOICES = spaces.Discrete(3, start=5)
Q = np.array([[[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]], [[2.0, 1.0, 2.5], [0.0, 0.0, 5.0]]], np.float32)
"""Of two critics at two states, of three actions."""
MASKS = np.array([[True, True, True], [True, False, True]])


@dataclass(frozen=True, eq=False)
class Said:
    """Critics that say what they are told."""

    all_values: np.ndarray
    states: States

    def of(self, actions: Any) -> Any:
        raise AssertionError("they know Discrete actions alone")

    def of_all(self) -> Any:
        return jnp.asarray(self.all_values)


def told(masks: Any) -> Said:
    features = {"vector": jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32))}
    return Said(Q, States(features, masks, (2, 3)))


@pytest.mark.parametrize("masks", [None, MASKS], ids=["all allowed", "masks"])
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_the_mean_over_discrete_actions_by_hand(masks: np.ndarray | None, alpha: float) -> None:
    policy = make_update("sac", CHOICES).policy
    parameters = scattered(policy.init(KEY), 3, 1.0)
    critics: Any = told(masks)
    valued = Expected(Least())(policy, parameters, critics, jnp.float32(alpha), jnp.zeros(()), KEY)
    logits = np.asarray(policy.at(parameters, critics.states.features).logits, np.float64)  # type: ignore[attr-defined]
    for i in range(2):
        allowed = np.ones(3, bool) if masks is None else masks[i]
        p = np.where(allowed, np.exp(logits[i]), 0.0) / np.exp(logits[i])[allowed].sum()
        entropy = -np.sum(p[allowed] * np.log(p[allowed]))
        assert float(valued.values[i]) == pytest.approx(p @ Q.min(axis=0)[i] + alpha * entropy, rel=1e-5, abs=1e-6)
        assert float(valued.log_probs[i]) == pytest.approx(-entropy, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("masks", [None, MASKS], ids=["all allowed", "masks"])
def test_the_soft_maximum_over_discrete_actions_by_hand(masks: np.ndarray | None) -> None:
    critics: Any = told(masks)
    valued = SoftMaximum(Least())(None, {}, critics, jnp.float32(0.7), jnp.zeros(()), KEY)  # type: ignore[arg-type]
    for i in range(2):
        q = Q.min(axis=0)[i].astype(np.float64)[np.ones(3, bool) if masks is None else masks[i]]
        p = np.exp(q / 0.7) / np.exp(q / 0.7).sum()
        assert float(valued.values[i]) == pytest.approx(0.7 * np.log(np.exp(q / 0.7).sum()), rel=1e-6)
        assert float(valued.log_probs[i]) == pytest.approx(p @ np.log(p), rel=1e-5, abs=1e-6)
        # It is what the best policy is worth, and no other is worth as much.
        assert float(valued.values[i]) == pytest.approx(p @ (q - 0.7 * np.log(p)), rel=1e-6)


def test_the_choice_of_most_value_and_entropy_is_that_of_the_derivation() -> None:
    """c = [1, 2, 3, 0.5] and a weight of 0.7; no other p has a larger objective."""
    c: Any = np.array([1.0, 2.0, 3.0, 0.5])
    weight = 0.7
    p = np.asarray(maximum_entropy_choice(c, weight))
    np.testing.assert_allclose(p, np.exp(c / weight) / np.exp(c / weight).sum(), rtol=1e-12)

    def objective(p: np.ndarray) -> float:
        return float(p @ c - weight * p @ np.log(p))

    draw = np.random.default_rng(0)
    assert all(objective(p) > objective(0.9 * p + 0.1 * draw.dirichlet(np.ones(4))) for _ in range(20))


def test_the_mirrored_policy_is_the_softmax_of_the_first_critic() -> None:
    update = make_update("sql", CHOICES, n_critics=2, ent_coef=0.4)
    assert isinstance(update.improvement, Mirroring)
    learner = scattered_learner(update)
    rows = some_rows(actions=5.0 + np.arange(6, dtype=np.float32)[:, None] % 3)
    new, said, _ = improve(update, learner, rows)
    features = update.policy.encoder.encode(rows.observations, new.observation_moments)
    values, _ = update.critic.of_all(new.parameters["critic"], (), features, KEY, False)
    probs = update.policy.at(new.parameters["policy"], features).probs  # type: ignore[attr-defined]
    np.testing.assert_allclose(probs, jax.nn.softmax(values[0] / 0.4), rtol=1e-4, atol=1e-6)
    # What the record says is said of that policy.
    weights = rows.weights / rows.weights.sum()
    entropy = -np.sum(probs * np.log(probs), axis=-1)
    assert said["entropy"] == pytest.approx(float(weights @ entropy), rel=1e-4)
    worth = 0.4 * jax.nn.logsumexp(values[0] / 0.4, axis=-1)
    assert said["actor_loss"] == pytest.approx(-float(weights @ worth), rel=1e-4)


def test_a_sampler_climbs_the_least_of_all_critics_whatever_subset_targets_take() -> None:
    subset = make_update("sql", n_critics=3, n_critics_subset=1, n_particles=4, n_value_samples=2)
    climbing: Any = subset.improvement
    learner, rows = scattered_learner(subset), some_rows()
    features = subset.policy.encoder.encode(rows.observations, learner.observation_moments)
    critics = FixedCritics(subset.critic, learner.parameters["critic"], (), States(features, None, (6, 2)), KEY)
    noise = climbing.value.noise(KEY, (6, 2))
    drawn = subset.policy.at(learner.parameters["policy"], features).outcome(noise)  # type: ignore[attr-defined]
    values = critics.of(subset.policy.actions.to_unit(drawn[:2], jnp)).min(axis=0)
    for key in jax.random.split(KEY, 4):
        valued = climbing.value(
            subset.policy, learner.parameters["policy"], critics, jnp.float32(1.0), jnp.asarray(noise), key
        )
        np.testing.assert_allclose(valued.values, values.mean(axis=0), rtol=1e-5)


def test_the_uniform_estimate_of_the_soft_maximum_is_the_integral() -> None:
    """Of Q = 2 - (a - 1)^2 over [-3, 5], the integral of exp(Q / 0.5) is nearly that of a normal density."""

    @dataclass(frozen=True, eq=False)
    class Bump:
        states: States

        def of(self, units: Any) -> Any:
            a = 1.0 + 4.0 * units[..., 0]
            return (2.0 - jnp.square(a - 1.0))[None]

    part = SampledSoftMaximum(First(), 4_000, (4.0,))
    critics: Any = Bump(States({}, None, (5, 1)))
    noise = part.noise(KEY, (5, 1))
    valued = part(None, {}, critics, jnp.float32(0.5), noise, KEY)  # type: ignore[arg-type]
    exact = 0.5 * (2.0 / 0.5 + 0.5 * np.log(np.pi * 0.5))
    np.testing.assert_allclose(valued.values, exact, atol=0.03)
    assert np.isnan(np.asarray(valued.log_probs)).all()


def test_steins_direction_by_hand() -> None:
    particles, moved = jnp.asarray([[[0.0]], [[2.0]]]), jnp.asarray([[[1.0]]])
    scores = jnp.asarray([[[3.0]], [[-1.0]]])
    width = 1.0 / np.log(3.0)  # all squared distances are 1
    kernel = np.exp(-1.0 / width)
    # The first is below and pushes up by 2 / width, the second is above and pushes down by as much.
    by_hand = 0.5 * kernel * ((3.0 + 2.0 / width) + (-1.0 - 2.0 / width))
    np.testing.assert_allclose(stein_direction(particles, scores, moved)[0, 0, 0], by_hand, rtol=1e-6)


DENSITIES: dict[str, Any] = {
    "slope": lambda a, xp: 0.8 * a,  # most of its mass is at a bound
    "hill": lambda a, xp: -xp.square(a - 0.5),
    "two hills": lambda a, xp: 0.5 * xp.logaddexp(-4.0 * xp.square(a + 0.6), 0.4 - 4.0 * xp.square(a - 0.6)),
}
"""Q of actions in [-2, 2]."""


@pytest.mark.parametrize(
    "name", ["slope", *(pytest.param(name, marks=pytest.mark.slow) for name in list(DENSITIES)[1:])]
)
def test_a_sampler_learns_the_exact_density_in_its_box(name: str) -> None:
    """The density is proportional to exp(Q / 0.5): moments, and the distance between distribution functions."""
    update = make_update("sql", spaces.Box(-2.0, 2.0, (1,), np.float32), n_particles=64, net_arch=(32, 32))
    q_of, alpha = DENSITIES[name], 0.5

    @dataclass(frozen=True, eq=False)
    class Known:
        states: States

        def of(self, units: Any) -> Any:
            return q_of(2.0 * units[..., 0], jnp)[None]

    critics: Any = Known(States({"vector": jnp.zeros((4, 3), jnp.float32)}, None, (4, 1)))
    climbing, optimiser = Climbing(Stein(First(), 64)), Optimiser(Constant(1e-3), optax.scale_by_adam())
    rows, one = Rows(jnp.zeros((4, 1)), jnp.ones(4)), jnp.float32(1.0)

    def step(state: Any, key: Any) -> tuple[Any, None]:
        parameters, solver = state
        given = Given(update.policy, optimiser, critics, rows, jnp.float32(alpha), one, key, key)
        new = climbing(parameters, solver, given)
        return (new.parameters, new.state), None

    parameters: Any = update.policy.init(KEY)
    start = (parameters, optimiser.init(parameters))
    (parameters, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, jax.random.split(KEY, 2_000)))(start)
    distribution: Any = update.policy.at(parameters, {"vector": jnp.zeros((3,), jnp.float32)})
    drawn = np.sort(2.0 * np.tanh(distribution.outcome(jax.random.normal(KEY, (4_000, 1)))[:, 0]))
    grid = np.linspace(-2.0, 2.0, 4_001)
    density = np.exp(q_of(grid, np) / alpha)
    density /= density.sum()
    for k in (1, 2):
        assert (drawn**k).mean() == pytest.approx(density @ grid**k, abs=0.1)
    assert np.abs(np.searchsorted(drawn, grid) / len(drawn) - np.cumsum(density)).max() < 0.06


def test_cloning_beside_the_critics_by_hand() -> None:
    """TD3+BC's objective and its gradient."""
    update = by_gradient(make_update("td3", bc_coef=0.4))
    learner, rows = scattered_learner(update), some_rows()
    policy = update.policy
    features = policy.encoder.encode(rows.observations, learner.observation_moments)
    units = policy.actions.unit_of(jnp.asarray(rows.actions), jnp)
    states = States(features, None, (6, 2))
    critics = FixedCritics(update.critic, learner.parameters["critic"], (), states, KEY)
    flat, unravel = ravel_pytree(learner.parameters["policy"])

    def parts(flat: Any) -> tuple[Any, Any]:
        mode = policy.actions.to_unit(policy.at(unravel(flat), features).mode(), jnp)
        return critics.of(mode)[0], jnp.mean(jnp.square(mode - units), axis=-1)

    weights = np.asarray(rows.weights, np.float64)
    q, distance = (np.asarray(x, np.float64) for x in parts(flat))
    size = weights @ np.abs(q) / weights.sum()
    slope = jax.grad(lambda flat: jnp.sum(weights * (parts(flat)[0] / size - 0.4 * parts(flat)[1])) / weights.sum())(
        flat
    )
    # The critics would move first: here they stay, and the policy moves each time.
    still = replace(
        update,
        optimisers=update.optimisers._replace(critic=Optimiser(Constant(1e-30), optax.identity())),
        cadence=replace(update.cadence, policy_delay=1),
    )
    new, said, _ = improve(still, learner, rows)
    moved = ravel_pytree(new.parameters["policy"])[0] - flat
    np.testing.assert_allclose(moved, RATE * slope, rtol=2e-3, atol=2e-6)
    assert said["actor_loss"] == pytest.approx(-(weights @ (q / size - 0.4 * distance)) / weights.sum(), rel=1e-5)
