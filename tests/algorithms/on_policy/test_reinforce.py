"""REINFORCE and the restricted gradient as whole updates, against gradients by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from updates import BOX, CHOICES, CONTINUOUS, experience, first_learner, flat, improve, make_update, rows_of

from jumar.errors import UsageError
from jumar.trajectory import Trajectory

PLAIN: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "gamma": 0.9}


def change(update: Any, learner: Any, trajectory: Trajectory) -> tuple[np.ndarray, dict[str, np.ndarray], Any]:
    new, record = improve(update, learner, trajectory)
    return flat(new.parameters["policy"]) - flat(learner.parameters["policy"]), record, new


def score_gradient(update: Any, learner: Any, trajectory: Trajectory, coefficients: np.ndarray) -> np.ndarray:
    """Return the gradient of the sum over rows of ``coefficients`` ``[T, N]`` times log pi."""
    batch = rows_of(update, learner, trajectory)
    by_row = jnp.asarray(coefficients.T.reshape(-1), jnp.float32)

    def objective(policy: Any) -> jax.Array:
        return jnp.sum(by_row * update.policy.evaluate(policy, batch).log_prob(batch.actions))

    return flat(jax.jit(jax.grad(objective))(learner.parameters["policy"]))


def episodes_of(trajectory: Trajectory) -> list[tuple[int, list[int], bool]]:
    """Return (environment, rows, whether it ended) of every episode in a rollout that begins with fresh ones."""
    ended = np.asarray(trajectory.ended)
    found = []
    for n in range(ended.shape[1]):
        rows: list[int] = []
        for t in range(ended.shape[0]):
            rows.append(t)
            if ended[t, n]:
                found.append((n, rows, True))
                rows = []
        if rows:
            found.append((n, rows, False))
    return found


@pytest.mark.parametrize("space", [CHOICES, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("advantage", ["to-go", "return"])
@pytest.mark.parametrize("baseline", ["none", "mean", "time"])
def test_the_step_is_the_score_times_the_return(space: Any, advantage: str, baseline: str) -> None:
    update = make_update(BOX, space, "reinforce", advantage=advantage, baseline=baseline, **PLAIN)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    rewards = np.asarray(trajectory.rewards)
    returns, counted = np.zeros_like(rewards), np.zeros_like(rewards)
    for n, rows, ended in episodes_of(trajectory):
        for k, t in enumerate(rows):
            later = rows[k:] if advantage == "to-go" else rows
            returns[t, n] = sum(0.9 ** (u - later[0]) * rewards[u, n] for u in later)
            counted[t, n] = ended
    assert 0 < counted.sum() < counted.size
    if baseline == "mean":
        returns = returns - (returns * counted).sum() / counted.sum()
    if baseline == "time":
        # Of the two episodes that end, of 3 and 5 rows, both have their first three times.
        both = (returns[:3, 0] + returns[:3, 1]) / 2.0
        returns = returns.copy()
        returns[:3] -= both[:, None]
        returns[3:5, 1] = 0.0
    expected = 0.1 * score_gradient(update, learner, trajectory, returns * counted / counted.sum())
    step, record, _ = change(update, learner, trajectory)
    np.testing.assert_allclose(step, expected, atol=1e-6)
    assert record["grad_norm"] == pytest.approx(np.linalg.norm(expected) / 0.1, rel=1e-4)


def test_states_late_in_an_episode_weigh_less_where_the_discount_says_so() -> None:
    update = make_update(BOX, CHOICES, "reinforce", baseline="none", discount_states=True, **PLAIN)
    learner = first_learner(update)._replace(ages=jnp.array([3, 0], jnp.int32))
    trajectory = experience(update, learner)
    rewards = np.asarray(trajectory.rewards)
    coefficients, weights = np.zeros_like(rewards), np.zeros_like(rewards)
    for n, rows, ended in episodes_of(trajectory):
        older = 3 if n == 0 and rows[0] == 0 else 0
        for k, t in enumerate(rows):
            weights[t, n] = ended * 0.9 ** (k + older)
            coefficients[t, n] = sum(0.9 ** (u - t) * rewards[u, n] for u in rows[k:])
    expected = score_gradient(update, learner, trajectory, coefficients * weights / weights.sum())
    step, _, new = change(update, learner, trajectory)
    np.testing.assert_allclose(step, 0.1 * expected, atol=1e-6)
    # Environment 0 ended at row 2 and environment 1 at row 4, of 8.
    np.testing.assert_array_equal(new.ages, [5, 3])


def test_the_discount_of_states_goes_into_every_method() -> None:
    for name in ("ppo", "a2c", "trpo", "npg"):
        steps = []
        for discounted in (False, True):
            update = make_update(BOX, CHOICES, name, discount_states=discounted)
            learner = first_learner(update)
            steps.append(change(update, learner, experience(update, learner))[0])
        assert not np.allclose(*steps, atol=1e-6), name


def test_a_critic_s_value_is_subtracted_and_fitted_by_itself() -> None:
    update = make_update(BOX, CHOICES, "reinforce", baseline="critic", **PLAIN)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    batch = rows_of(update, learner, trajectory)
    returns = np.asarray(batch.returns - batch.values).reshape(2, 8).T
    step, _, new = change(update, learner, trajectory)
    np.testing.assert_allclose(step, 0.1 * score_gradient(update, learner, trajectory, returns / 16), atol=1e-6)
    assert not np.array_equal(flat(new.parameters["critic"]), flat(learner.parameters["critic"]))


def test_an_independent_baseline_is_fitted_to_other_trajectories_than_the_gradient_is_taken_of() -> None:
    update = make_update(BOX, CHOICES, "reinforce", baseline="independent", n_envs=4, batch_size=32, **PLAIN)
    learner = first_learner(update, 4)
    trajectory = experience(update, learner, n_envs=4)
    step, _, new = change(update, learner, trajectory)
    # The baseline is the critic after its fit, and the rows are those of the last two environments.
    fitted = learner._replace(parameters={**learner.parameters, "critic": new.parameters["critic"]})
    batch = rows_of(update, fitted, trajectory)
    advantages = np.array(batch.returns - batch.values).reshape(4, 8).T
    advantages[:, :2] = 0.0
    np.testing.assert_allclose(step, 0.1 * score_gradient(update, learner, trajectory, advantages / 16), atol=1e-6)

    def after(changed: slice) -> tuple[np.ndarray, np.ndarray]:
        rewards = np.array(trajectory.rewards)
        rewards[:, changed] += 1.0
        moved, _, result = change(update, learner, trajectory._replace(rewards=jnp.asarray(rewards)))
        return moved, flat(result.parameters["critic"])

    critic = flat(new.parameters["critic"])
    assert not np.array_equal(after(slice(0, 2))[1], critic)
    moved, same = after(slice(2, 4))
    np.testing.assert_array_equal(same, critic)
    assert not np.array_equal(moved, step)


def test_where_no_episode_ends_nothing_moves() -> None:
    update = make_update(BOX, CHOICES, "reinforce", **PLAIN)
    learner = first_learner(update)
    never = jnp.zeros((8, 2), bool)
    step, record, _ = change(update, learner, experience(update, learner, terminated=never, truncated=never))
    assert record["finite"]
    assert not step.any()


@pytest.mark.parametrize(("baseline", "logged"), [("critic", True), ("none", False), ("mean", False)])
def test_what_a_critic_explains_is_logged_where_there_is_one(baseline: str, logged: bool) -> None:
    update = make_update(BOX, CHOICES, "reinforce", baseline=baseline, **PLAIN)
    learner = first_learner(update)
    _, record, _ = change(update, learner, experience(update, learner))
    assert ("explained_variance" in record) is logged


@pytest.mark.parametrize("settings", [{}, {"baseline": "none", "advantage": "return"}], ids=["critic", "returns"])
def test_a_restricted_step_goes_along_the_gradient_and_has_one_length(settings: dict[str, Any]) -> None:
    update = make_update(BOX, CHOICES, "restricted", epsilon=0.02, normalize_advantage=False, **settings)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    step, record, _ = change(update, learner, trajectory)
    assert np.linalg.norm(step) == pytest.approx(0.2, rel=1e-4)
    batch = rows_of(update, learner, trajectory)
    weights = np.asarray(batch.weights).reshape(2, 8).T
    advantages = np.asarray(batch.advantages).reshape(2, 8).T * weights / weights.sum()
    gradient = score_gradient(update, learner, trajectory, advantages)
    np.testing.assert_allclose(step, 0.2 * gradient / np.linalg.norm(gradient), atol=1e-5)
    assert record["predicted_improvement"] == pytest.approx(0.2 * np.linalg.norm(gradient), rel=1e-3)


@pytest.mark.parametrize("name", ["reinforce", "restricted"])
@pytest.mark.parametrize("case", ["no reward", "no experience", "one row"])
def test_what_gives_no_direction_gives_no_nan(name: str, case: str) -> None:
    rows = 1 if case == "one row" else 8
    update = make_update(BOX, CHOICES, name, n_steps=rows, batch_size=2 * rows)
    learner = first_learner(update)
    changes: dict[str, Any] = {"no reward": {"rewards": jnp.zeros((rows, 2))}}.get(case, {})
    if case == "no experience":
        changes["valid"] = jnp.zeros((rows, 2), bool)
    step, record, _ = change(update, learner, experience(update, learner, n_steps=rows, **changes))
    assert record["finite"], record
    if case == "no experience":
        assert not step.any()


def test_settings_that_do_not_go_together_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="advantage=gae needs a critic"):
        make_update(BOX, CHOICES, "ppo", baseline="none")
    with pytest.raises(UsageError, match="advantage=n-step needs a critic, and baseline=time has none"):
        make_update(BOX, CHOICES, "reinforce", advantage="n-step", baseline="time")
    with pytest.raises(UsageError, match="advantage=n-step needs importance=trajectory"):
        make_update(BOX, CHOICES, "ispg", advantage="n-step")
    with pytest.raises(UsageError, match="value_loss=huber has no part in acktr"):
        make_update(BOX, CHOICES, "acktr", value_loss="huber")
    with pytest.raises(UsageError, match="n_envs=1"):
        make_update(BOX, CHOICES, "reinforce", baseline="independent", n_envs=1, batch_size=8)
    with pytest.raises(UsageError, match="independent"):
        make_update(BOX, CHOICES, "ppo", baseline="independent")


def by_hand(update: Any, learner: Any, trajectory: Trajectory, gamma: float) -> list[tuple[np.ndarray, float, int]]:
    """Return (sum of scores, discounted return, length) of every episode that ended."""
    rewards = np.asarray(trajectory.rewards)
    found = []
    for n, rows, ended in episodes_of(trajectory):
        if ended:
            here = np.zeros_like(rewards)
            here[rows, n] = 1.0
            total = sum(gamma**k * rewards[t, n] for k, t in enumerate(rows))
            found.append((score_gradient(update, learner, trajectory, here), total, len(rows)))
    return found


def test_npg_by_trajectories_is_the_natural_update_of_the_textbook() -> None:
    """Algorithm 12.4 of *Algorithms for Decision Making*: mean gradient and mean Fisher matrix over whole trajectories."""
    settings: dict[str, Any] = {
        "advantage": "return",
        "baseline": "none",
        "fisher": "trajectories",
        "normalize_advantage": False,
        "cg_damping": 0.0,
        "gamma": 0.9,
    }
    update = make_update(BOX, CHOICES, "npg", target_kl=0.01, **settings)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    episodes = by_hand(update, learner, trajectory, 0.9)
    assert len(episodes) == 2
    gradient = sum(score * total for score, total, _ in episodes) / 2
    fisher = sum(np.outer(score, score) for score, _, _ in episodes) / 2
    u = np.linalg.pinv(fisher, rcond=1e-5) @ gradient
    step, record, _ = change(update, learner, trajectory)
    np.testing.assert_allclose(step, u * np.sqrt(0.02 / (gradient @ u)), atol=2e-4)
    assert 0.0 < record["mean_kl"] < 0.01, "the bound is on the divergence of trajectories, which are some steps long"


SAMPLED: dict[str, Any] = {
    "baseline": "none",
    "fisher": "trajectories",
    "normalize_advantage": False,
    "cg_damping": 0.0,
    "gamma": 0.5,
}


def discounted_to_go(trajectory: Trajectory, gamma: float) -> np.ndarray:
    """Return gamma^t times the reward-to-go of the rows of whole episodes, ``[T, N]``; 0 elsewhere."""
    rewards = np.asarray(trajectory.rewards)
    signals = np.zeros_like(rewards)
    for n, rows, ended in episodes_of(trajectory):
        for k, t in enumerate(rows):
            signals[t, n] = ended * sum(gamma ** (k + u - t) * rewards[u, n] for u in rows[k:])
    return signals


def test_trpo_by_trajectories_is_the_trust_region_update_of_the_textbook() -> None:
    """Algorithm 12.5: a natural step to the divergence of trajectories, halved until its mean over steps keeps the bound."""
    settings: dict[str, Any] = {"advantage": "return", "line_search_shrinking_factor": 0.5, "cg_tolerance": 1e-4}
    update = make_update(BOX, CHOICES, "trpo", target_kl=0.01, **{**SAMPLED, **settings})
    learner = first_learner(update)
    trajectory = experience(update, learner)
    episodes = by_hand(update, learner, trajectory, 0.5)
    gradient = sum(score * total for score, total, _ in episodes) / 2
    fisher = sum(np.outer(score, score) for score, _, _ in episodes) / 2
    x = np.linalg.pinv(fisher, rcond=1e-5) @ gradient
    whole = x * np.sqrt(0.02 / (x @ fisher @ x))
    step, record, _ = change(update, learner, trajectory)
    fraction = float(record["step_fraction"])
    np.testing.assert_allclose(step, fraction * whole, atol=2e-3 * np.abs(whole).max())
    assert np.log2(fraction) == -(record["line_search_tries"] - 1.0)
    assert 0.0 < record["mean_kl"] <= 0.01


def test_rows_are_left_out_of_the_exact_fisher_matrix_alone() -> None:
    with pytest.raises(UsageError, match="sub_sampling_factor=2 needs fisher=exact, and fisher=steps"):
        make_update(BOX, CHOICES, "trpo", fisher="steps", sub_sampling_factor=2)


@pytest.mark.parametrize("method", ["trpo", "npg", "acktr"])
def test_rows_of_sequences_are_not_left_out(method: str) -> None:
    with pytest.raises(UsageError, match="sub_sampling_factor=2 leaves rows out, and a recurrent policy needs all"):
        make_update(BOX, CHOICES, method, recurrent="gru", sub_sampling_factor=2)


def test_the_fisher_matrix_of_trajectories_has_scores_without_discounts_where_states_have_them() -> None:
    """Equation 12.9: the divergence of whole trajectories is a sum over their steps, early and late ones alike."""
    update = make_update(BOX, CHOICES, "npg", target_kl=0.01, advantage="to-go", discount_states=True, **SAMPLED)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    gradient = score_gradient(update, learner, trajectory, discounted_to_go(trajectory, 0.5))
    fisher = sum(np.outer(score, score) for score, _, _ in by_hand(update, learner, trajectory, 0.5)) / 2
    step, _, _ = change(update, learner, trajectory)
    assert 0.5 * step @ fisher @ step == pytest.approx(0.01, rel=1e-3)
    direction = np.linalg.pinv(fisher, rcond=1e-5) @ gradient
    np.testing.assert_allclose(step, direction * np.sqrt(0.02 / (direction @ fisher @ direction)), atol=2e-4)


def test_the_sampled_fisher_matrix_of_steps_gives_another_step_to_nearly_the_same_divergence() -> None:
    steps = {}
    for fisher in ("exact", "steps"):
        update = make_update(BOX, CHOICES, "npg", fisher=fisher, n_steps=128, batch_size=256)
        learner = first_learner(update)
        steps[fisher], record, _ = change(update, learner, experience(update, learner, n_steps=128))
        assert record["mean_kl"] == pytest.approx(0.01, rel=0.5)
    assert not np.allclose(steps["exact"], steps["steps"], atol=1e-5)


def test_ppo_by_plain_ascent_on_returns_is_the_clamped_update_of_the_textbook() -> None:
    """Algorithm 12.6 of *Algorithms for Decision Making*, with the corrected condition of its clamp."""
    rate, clip, updates = 2.0, 0.05, 4
    settings: dict[str, Any] = {
        "optimizer": "sgd",
        "advantage": "to-go",
        "baseline": "none",
        "normalize_advantage": False,
        "discount_states": True,
        "max_grad_norm": None,
        "gamma": 0.9,
    }
    update = make_update(BOX, CHOICES, "ppo", learning_rate=rate, clip_range=clip, n_epochs=updates, **settings)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    rewards = np.asarray(trajectory.rewards)
    to_go, discounts = np.zeros_like(rewards), np.zeros_like(rewards)
    for n, rows, ended in episodes_of(trajectory):
        for k, t in enumerate(rows):
            discounts[t, n] = ended * 0.9**k
            to_go[t, n] = ended * sum(0.9 ** (k + u - t) * rewards[u, n] for u in rows[k:])
    batch = rows_of(update, learner, trajectory)
    old = np.asarray(batch.log_probs).reshape(2, 8).T
    log_prob = jax.jit(lambda policy: update.policy.evaluate(policy, batch).log_prob(batch.actions))
    at, clamped = learner, 0
    for _ in range(updates):
        ratio = np.exp(np.asarray(log_prob(at.parameters["policy"])).reshape(2, 8).T - old)
        dropped = ((to_go > 0) & (ratio > 1 + clip)) | ((to_go < 0) & (ratio < 1 - clip))
        clamped += dropped.sum()
        # grad pi / pi_old is the ratio times the score; the mean is over d(s) instead of over steps.
        gradient = score_gradient(update, at, trajectory, np.where(dropped, 0.0, ratio * to_go) / discounts.sum())
        shapes, unravel = jax.flatten_util.ravel_pytree(at.parameters["policy"])
        policy = unravel(shapes + jnp.asarray(rate * gradient, jnp.float32))
        at = at._replace(parameters={**at.parameters, "policy": policy})
    assert clamped > 0
    step, _, _ = change(update, learner, trajectory)
    np.testing.assert_allclose(step, flat(at.parameters["policy"]) - flat(learner.parameters["policy"]), atol=1e-5)
