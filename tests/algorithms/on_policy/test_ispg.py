"""The off-policy policy gradient as a whole update: against A2C, against the gradient by hand, and with odd input."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces
from updates import BOX, CHOICES, CONTINUOUS, experience, first_learner, flat, improve, make_update

from jumar.errors import UsageError
from jumar.schedules import Constant
from jumar.solvers import Ascent, Joint, Optimiser, Repeated

WAYS = ("clipped", "per-decision", "trajectory")
KINDS = [*((way, False) for way in WAYS), ("per-decision", True)]
PLAIN: dict[str, Any] = {"gae_lambda": 0.9, "gamma": 0.9}


def by_plain_ascent(update: Any, n_updates: int = 1) -> Any:
    """Return the update with steps of 0.1 times the gradient of the policy alone."""
    climber = Repeated(Ascent(Optimiser(Constant(0.1), optax.identity())), n_updates)
    return dataclasses.replace(update, solver=Joint(climber, 0.0))


@pytest.mark.parametrize(("way", "self_normalize"), KINDS)
def test_on_its_own_rollout_it_is_a2c_and_those_that_are_not_there_yet_weigh_nothing(
    way: str, self_normalize: bool
) -> None:
    common = {**PLAIN, "ent_coef": 0.01, "normalize_advantage": True, "normalize_rewards": True}
    own = {"n_rollouts": 3, "importance": way, "self_normalize": self_normalize}
    parameters = []
    for name, settings in (("a2c", {}), ("ispg", own)):
        update = make_update(BOX, CHOICES, name, **common, **settings)
        learner = first_learner(update)
        new, record = improve(update, learner, experience(update, learner))
        parameters.append(flat(new.parameters))
    np.testing.assert_allclose(*parameters, atol=1e-6)
    assert record["effective_sample_size"] == pytest.approx(1.0, abs=1e-5)


def test_without_a_critic_it_is_reinforce_by_whole_returns() -> None:
    parameters = []
    for name, own in (("a2c", {}), ("ispg", {"n_rollouts": 1, "importance": "trajectory"})):
        update = make_update(BOX, CONTINUOUS, name, advantage="return", baseline="mean", **own)
        learner = first_learner(update)
        new, _ = improve(update, learner, experience(update, learner))
        parameters.append(flat(new.parameters))
    np.testing.assert_allclose(*parameters, atol=1e-6)


def two_rollouts(update: Any) -> tuple[Any, list[Any]]:
    """Return a learner that keeps the rollout of another policy, a new rollout of its own, and that of the other."""
    learners = []
    for seed in (3, 4):
        learner = first_learner(update, seed=seed)
        policy = learner.parameters["policy"]
        # With heads as they are drawn, all policies would be nearly uniform, and all ratios nearly 1.
        policy = {**policy, "head": jax.tree.map(lambda x: 60.0 * x, policy["head"])}
        learners.append(learner._replace(parameters={**learner.parameters, "policy": policy}))
    old = experience(update, learners[0], seed=1)
    after, _ = improve(update, learners[0], old)
    learner = learners[1]._replace(experience=after.experience)
    return learner, [experience(update, learner, seed=2), old]


def weights_and_advantages(way: str, ratios: np.ndarray, deltas: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Return both for each row of one environment, by loops over the definitions; gamma times lambda is 0.81."""
    n_steps = len(ratios)
    ends = [*np.flatnonzero(ended), n_steps - 1]
    found = np.zeros((2, n_steps))
    for t in range(n_steps):
        begin, end = max([e + 1 for e in ends if e < t], default=0), min(e for e in ends if e >= t) + 1
        rows = {"clipped": slice(t, t + 1), "per-decision": slice(begin, t + 1), "trajectory": slice(begin, end)}
        carried = {"clipped": np.minimum(1.0, ratios), "per-decision": ratios, "trajectory": np.ones(n_steps)}[way]
        product = np.prod(ratios[rows[way]])
        found[0, t] = min(product, 1.0) if way == "clipped" else product
        found[1, t] = sum(0.81 ** (k - t) * np.prod(carried[t + 1 : k + 1]) * deltas[k] for k in range(t, end))
    return found


def by_hand(update: Any, learner: Any, rollouts: list[Any], way: str, self_normalize: bool) -> np.ndarray:
    """Return the step 0.1 g on two rollouts."""
    one_step = make_update(BOX, CHOICES, "a2c", gae_lambda=0.0, gamma=0.9)  # its advantages are the deltas
    found, batches = [], []
    for rollout in rollouts:
        batch = jax.jit(one_step.batch)(learner, rollout)
        log_probs = jax.jit(update.completed)(learner, rollout).log_probs
        ratios = np.exp(np.asarray(log_probs - rollout.log_probs, np.float64))
        deltas = np.asarray(batch.advantages, np.float64).reshape(2, 8).T
        for n in range(2):
            found.append(weights_and_advantages(way, ratios[:, n], deltas[:, n], np.asarray(rollout.ended)[:, n]))
        batches.append(batch)
    weights, advantages = np.concatenate(found, axis=1)
    if self_normalize:
        weights = weights / weights.mean()
    together = jax.tree.map(lambda *x: jnp.concatenate(x), *batches)

    def objective(policy: Any, coefficients: Any, batch: Any) -> Any:
        return jnp.mean(coefficients * update.policy.evaluate(policy, batch).log_prob(batch.actions))

    coefficients = jnp.asarray(weights * advantages, jnp.float32)
    return 0.1 * flat(jax.jit(jax.grad(objective))(learner.parameters["policy"], coefficients, together))


@pytest.mark.parametrize(("way", "self_normalize"), KINDS)
def test_the_step_on_two_rollouts_is_the_weighted_score(way: str, self_normalize: bool) -> None:
    settings = {**PLAIN, "n_rollouts": 3, "importance": way, "self_normalize": self_normalize}
    update = by_plain_ascent(make_update(BOX, CHOICES, "ispg", **settings))
    learner, rollouts = two_rollouts(update)
    new, record = improve(update, learner, rollouts[0])
    step = flat(new.parameters["policy"]) - flat(learner.parameters["policy"])
    np.testing.assert_allclose(step, by_hand(update, learner, rollouts, way, self_normalize), atol=2e-6)
    assert 0.1 < record["effective_sample_size"] < 0.999


def test_several_steps_are_weighted_anew_each() -> None:
    update = make_update(BOX, CHOICES, "ispg", n_rollouts=1, importance="per-decision", **PLAIN)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    once, _ = improve(by_plain_ascent(update), learner, trajectory)
    twice, _ = improve(by_plain_ascent(update), once, trajectory)
    together, _ = improve(by_plain_ascent(update, 2), learner, trajectory)
    np.testing.assert_allclose(flat(together.parameters), flat(twice.parameters), atol=1e-6)


def test_normalisers_learn_from_each_rollout_once_and_scale_all_of_them_alike() -> None:
    update = make_update(BOX, CHOICES, "ispg", n_rollouts=3, normalize_observations=True, normalize_rewards=True)
    learner = first_learner(update)
    for seed in range(3):
        learner, _ = improve(update, learner, experience(update, learner, seed=seed))
        assert learner.observation_moments.rows == 16 * (seed + 1)
        assert learner.reward_scale.moments.rows == 16 * (seed + 1)
    stored = learner.experience.trajectory
    np.testing.assert_array_equal(stored.rewards[0], experience(update, learner, seed=2).rewards)
    np.testing.assert_array_equal(stored.observations[2], experience(update, learner, seed=0).observations)
    restarted = update.restart(learner)
    np.testing.assert_array_equal(restarted.experience.trajectory.rewards, stored.rewards)


def test_ages_of_stored_rollouts_are_theirs() -> None:
    update = make_update(BOX, CHOICES, "ispg", n_rollouts=2)
    learner = first_learner(update)._replace(ages=jnp.array([3, 0], jnp.int32))
    after = [learner]
    for seed in range(2):
        new, _ = improve(update, after[-1], experience(update, after[-1], seed=seed))
        after.append(new)
    # Environment 0 ends at row 2 and environment 1 at row 4, of 8.
    np.testing.assert_array_equal(after[2].ages, [5, 3])
    np.testing.assert_array_equal(after[2].experience.ages, [[5, 3], [3, 0]])


@pytest.mark.parametrize(
    ("way", "space"), [("clipped", CHOICES), ("trajectory", CONTINUOUS)], ids=["clipped", "trajectory"]
)
def test_a_recurrent_policy_learns_from_stored_memories(way: str, space: Any) -> None:
    update = make_update(BOX, space, "ispg", n_rollouts=2, importance=way, recurrent="gru", recurrent_size=4)
    learner = first_learner(update)
    for seed in range(2):
        new, record = improve(update, learner, experience(update, learner, seed=seed))
        assert record["finite"]
        assert not np.array_equal(flat(new.parameters["policy"]), flat(learner.parameters["policy"]))
        learner = new


def test_actions_that_were_forbidden_stay_impossible() -> None:
    update = make_update(BOX, CHOICES, "ispg", n_rollouts=2)
    learner = first_learner(update)
    masks = jnp.asarray(np.arange(3) != 1)[None, None] & jnp.ones((8, 2, 1), bool)
    learner, _ = improve(update, learner, experience(update, learner, action_masks=masks))
    # In the second update the stored rows keep their masks: with them the policy that acted is still the policy.
    first = first_learner(update)
    learner = learner._replace(parameters=first.parameters)
    _, record = improve(update, learner, experience(update, learner, action_masks=masks))
    assert record["effective_sample_size"] == pytest.approx(1.0, abs=1e-5)
    assert record["entropy"] <= np.log(2.0)


@pytest.mark.parametrize(
    ("way", "case"),
    [
        *itertools.product(WAYS, ["no reward", "no experience", "unlikely", "impossible"]),
        ("per-decision", "one action"),
        ("trajectory", "one row"),
    ],
)
def test_what_gives_no_direction_gives_no_nan(way: str, case: str) -> None:
    rows = 1 if case == "one row" else 8
    action_space = spaces.Discrete(1) if case == "one action" else CHOICES
    normalize = way != "clipped"
    update = make_update(
        BOX, action_space, "ispg", n_rollouts=2, n_steps=rows, importance=way, self_normalize=normalize
    )
    learner = first_learner(update)
    changes: dict[str, Any] = {"no reward": {"rewards": jnp.zeros((rows, 2))}}.get(case, {})
    if case == "no experience":
        changes["valid"] = jnp.zeros((rows, 2), bool)
    for seed in range(2):
        trajectory = experience(update, learner, n_steps=rows, seed=seed, **changes)
        if case in ("unlikely", "impossible"):
            log_probs = {"unlikely": 1e4, "impossible": -np.inf}[case]
            trajectory = trajectory._replace(log_probs=jnp.full((rows, 2), log_probs))
        new, record = improve(update, learner, trajectory)
        assert all(np.isfinite(x) for x in record.values()), record
        assert record["finite"]
        if case in ("one action", "no experience"):
            np.testing.assert_array_equal(flat(new.parameters["policy"]), flat(learner.parameters["policy"]))
        learner = new


def test_settings_that_do_not_go_together_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="advantage=return needs importance=trajectory"):
        make_update(BOX, CHOICES, "ispg", advantage="return")
    with pytest.raises(UsageError, match="c_bar=2 is above rho_bar=1"):
        make_update(BOX, CHOICES, "ispg", c_bar=2.0)
    with pytest.raises(UsageError, match="advantage=gae needs a critic"):
        make_update(BOX, CHOICES, "ispg", baseline="none")
