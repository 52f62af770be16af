"""The shared off-policy update against the same arithmetic in NumPy, and what the settings of a method stand for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from replays import (
    HALF,
    MIDDLE,
    by_gradient,
    change,
    chosen_by,
    double,
    drawn,
    gradient,
    improve,
    make_update,
    mean,
    mode,
    program,
    q_values,
    regression,
    scattered_learner,
    some_rows,
    steps,
    told,
)

from jumar.algorithms.off_policy.state_values import entropy_part
from jumar.algorithms.off_policy.update import OffPolicy
from jumar.critics.ensemble import Least
from jumar.critics.targets import polyak
from jumar.errors import UsageError
from jumar.experience.replay import ABSENT
from jumar.schedules import Constant

NOISE, MORE = np.random.default_rng(5).normal(size=(2, 6, 2)).astype(np.float32)


def targets_of(update: OffPolicy, name: str, learner: Any, rows: Any, noise: np.ndarray) -> np.ndarray:
    """Return the targets of a method by its paper, in double precision."""
    parameters, successors = double(learner.parameters), np.asarray(rows.successors, np.float64)
    target = parameters["target"]
    if name == "sac":
        alpha = np.exp(parameters["temperature"]["log_alpha"])
        units, log_prob = drawn(parameters["policy"], successors, noise)
        after = q_values(target["critic"], successors, units).min(axis=0) - alpha * log_prob
    else:
        units = mode(target["policy"], successors)
        if name == "td3":
            units = np.clip(units + np.clip(0.2 * noise, -0.25, 0.25), -1.0, 1.0)
        after = q_values(target["critic"], successors, units).min(axis=0)
    return rows.rewards + rows.discounts * after


CASES: dict[str, dict[str, Any]] = {
    "ddpg": {},
    "td3": {"policy_delay": 1, "target_update_interval": 1, "target_noise_clip": 0.25},
    "sac": {},
}


@cache
def case(name: str) -> OffPolicy:
    """Return a method by plain gradients and with noise that is told."""
    return told(by_gradient(make_update(name, tau=0.1, **CASES[name])), 2.0 * NOISE, MORE)


@pytest.mark.parametrize("name", list(CASES))
def test_every_target_loss_and_step_is_that_of_the_paper(name: str) -> None:
    """Plain gradient steps are compared with central differences of losses that NumPy computes."""
    update = case(name)
    learner, rows = scattered_learner(update), some_rows()
    new, said, _ = improve(update, learner, rows)
    old, then = double(learner.parameters), double(new.parameters)
    targets = targets_of(update, name, learner, rows, 2.0 * NOISE.astype(np.float64))
    loss = regression(rows, targets)
    assert said["critic_loss"] == pytest.approx(loss(old["critic"]), rel=1e-5)
    np.testing.assert_allclose(change(old["critic"], then["critic"]), -gradient(loss, old["critic"]), atol=2e-6)

    units = (np.asarray(rows.actions, np.float64) - MIDDLE) / HALF
    observations = np.asarray(rows.observations, np.float64)
    values = q_values(old["critic"], observations, units)
    assert said["q_mean"] == pytest.approx(mean(values.mean(axis=0), rows.weights), rel=1e-5)
    assert said["td_error"] == pytest.approx(mean(np.abs(values - targets).mean(axis=0), rows.weights), rel=1e-5)
    assert said["grad_norm"] == pytest.approx(np.linalg.norm(gradient(loss, old["critic"])), rel=1e-5)

    alpha = np.exp(old["temperature"]["log_alpha"]) if name == "sac" else 0.0

    def objective(policy: Any) -> float:
        if name != "sac":
            return mean(q_values(then["critic"], observations, mode(policy, observations))[0], rows.weights)
        chosen, log_prob = drawn(policy, observations, MORE.astype(np.float64))
        return mean(q_values(then["critic"], observations, chosen).min(axis=0) - alpha * log_prob, rows.weights)

    assert said["actor_loss"] == pytest.approx(-objective(old["policy"]), rel=1e-5)
    np.testing.assert_allclose(change(old["policy"], then["policy"]), gradient(objective, old["policy"]), atol=3e-6)

    if name == "sac":
        log_prob = mean(drawn(old["policy"], observations, MORE.astype(np.float64))[1], rows.weights)
        missing = log_prob - 2.0 + np.sum(np.log(HALF))
        assert said["entropy"] == pytest.approx(-log_prob, rel=1e-5)
        assert said["ent_coef_loss"] == pytest.approx(-old["temperature"]["log_alpha"] * missing, rel=1e-4)
        assert change(old["temperature"], then["temperature"])[0] == pytest.approx(missing, rel=1e-4)
    followed = {group: then[group] for group in old["target"]}
    assert set(followed) == ({"critic"} if name == "sac" else {"policy", "critic"})
    expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, old["target"], followed)
    np.testing.assert_allclose(ravel_pytree(then["target"])[0], ravel_pytree(expected)[0], atol=1e-6)


def linear(name: str, **settings: Any) -> tuple[OffPolicy, Any]:
    """Return a method whose networks are linear, all with known numbers: Q_k = k + 1 + s_0 + (k + 1) a_0 in half ranges."""
    update = by_gradient(make_update(name, net_arch=(), **settings))
    learner = update.init(jax.random.PRNGKey(0), 1)
    n = update.critic.n
    kernel = np.zeros((5, n), np.float32)
    kernel[0], kernel[3] = 1.0, np.arange(n) + 1.0
    critic = {**learner.parameters["critic"], "first": {"kernel": kernel, "bias": np.arange(n) + 1.0}}
    head = {"mean": {"kernel": np.zeros((3, 2), np.float32), "bias": np.array([0.5, -2.0], np.float32)}}
    if name == "sac":
        head["log_std"] = {"kernel": np.zeros((3, 2), np.float32), "bias": np.log([0.5, 0.25]).astype(np.float32)}
    policy = {**learner.parameters["policy"], "head": head}
    parameters = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32), {**learner.parameters, "policy": policy, "critic": critic}
    )
    return update, update.begin_with(learner, parameters)


def one_row(**changes: Any) -> Any:
    """Return one row: from (1, 0, 0) with the actions (-1, 5), the middle, to (2, 0, 0), with a reward of 10 and gamma 0.5."""
    row = {
        "observations": np.array([[1.0, 0.0, 0.0]], np.float32),
        "actions": np.array([[-1.0, 5.0]], np.float32),
        "rewards": np.array([10.0], np.float32),
        "discounts": np.array([0.5], np.float32),
        "successors": np.array([[2.0, 0.0, 0.0]], np.float32),
        "weights": np.ones(1, np.float32),
    }
    return some_rows(1, **{**row, **changes})


def test_ddpg_by_literal_numbers() -> None:
    """Here Q(s, a) = 1 + 1 + 0 = 2, and the target 10 + 0.5 (1 + 2 + tanh 0.5) = 11.731059."""
    update, learner = linear("ddpg")
    _, said, _ = improve(update, learner, one_row())
    assert said["q_mean"] == pytest.approx(2.0)
    assert said["td_error"] == pytest.approx(9.7310586, rel=1e-6)
    assert said["critic_loss"] == pytest.approx(47.3467506, rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "moved"),
    [(0.5, 0.1), (1.0, 0.2), (10.0, 0.5), (-10.0, -0.5), (2.5, 0.5)],
)
def test_td3_by_literal_numbers_with_noise_that_is_clipped(noise: float, moved: float) -> None:
    """Noise of 0.2 x is clipped at 0.5, the action tanh 0.5 = 0.46211716 with it is in half ranges.

    Critic 0 says 3 + a, critic 1 says 4 + 2 a; critic 0 is the lower one as long as a > -1.
    """
    update, learner = linear("td3")
    update = told(update, np.full((1, 2), noise), np.zeros((1, 2)))
    _, said, _ = improve(update, learner, one_row())
    target = 10.0 + 0.5 * (3.0 + min(0.46211716 + moved, 1.0))
    assert said["td_error"] == pytest.approx(((target - 2.0) + (target - 3.0)) / 2.0, rel=1e-6)
    assert said["critic_loss"] == pytest.approx(0.5 * ((target - 2.0) ** 2 + (target - 3.0) ** 2), rel=1e-6)


def test_an_action_with_noise_does_not_leave_the_bounds() -> None:
    """tanh 2 + 0.5 is 1.464, of which 1 is left."""
    update, learner = linear("td3")
    head = {"mean": {"kernel": jnp.zeros((3, 2)), "bias": jnp.array([2.0, 0.0])}}
    parameters = {**learner.parameters, "policy": {**learner.parameters["policy"], "head": head}}
    update, learner = told(update, np.full((1, 2), 9.0), np.zeros((1, 2))), update.begin_with(learner, parameters)
    _, said, _ = improve(update, learner, one_row())
    assert said["td_error"] == pytest.approx((12.0 - 2.0 + 12.0 - 3.0) / 2.0, rel=1e-6)


def test_sac_by_literal_numbers() -> None:
    r"""At :math:`\epsilon = (1, -2)`: u = (1, -2.5), deviations 0.5 and 0.25, half ranges 2 and 5.

    log pi = -0.5 - 2 - log 2 pi - log 0.125 - log 10 - log(1 - tanh^2 1) - log(1 - tanh^2 2.5) = -0.5254398; the temperature
    is 0.3, and the target 10 + 0.5 (3 + tanh 1 + 0.3 x 0.5254398).
    """
    log_prob = -2.5 - np.log(2.0 * np.pi) - np.log(0.125) - np.log(10.0)
    log_prob -= np.log(1.0 - np.tanh(1.0) ** 2) + np.log(1.0 - np.tanh(2.5) ** 2)
    update, learner = linear("sac", ent_coef=0.3)
    update = told(update, np.array([[1.0, -2.0]]), np.array([[1.0, -2.0]]))
    _, said, _ = improve(update, learner, one_row())
    target = 10.0 + 0.5 * (3.0 + 0.76159416 - 0.3 * log_prob)
    assert said["td_error"] == pytest.approx((2.0 * target - 5.0) / 2.0, rel=1e-6)
    assert said["entropy"] == pytest.approx(-log_prob, rel=1e-5)
    assert said["ent_coef"] == pytest.approx(0.3)


def test_a_termination_is_worth_its_reward_alone() -> None:
    for name in CASES:
        update, learner = linear(name)
        _, said, _ = improve(update, learner, one_row(discounts=np.zeros(1, np.float32)))
        errors = [10.0 - (k + 2.0) for k in range(update.critic.n)]
        assert said["td_error"] == pytest.approx(np.mean(errors), rel=1e-6), name


def test_rows_that_are_no_experience_teach_nothing() -> None:
    """Whatever the numbers of a row without weight, nothing changes."""
    for name in CASES:
        update = case(name)
        learner, rows = scattered_learner(update), some_rows()
        other = some_rows(rewards=np.where(rows.weights > 0.0, rows.rewards, 1e3).astype(np.float32))
        (first, *_), (second, *_) = (improve(update, learner, x) for x in (rows, other))
        np.testing.assert_array_equal(ravel_pytree(first.parameters)[0], ravel_pytree(second.parameters)[0])


def test_no_gradient_goes_through_targets_or_from_the_policy_into_the_critics() -> None:
    """Without target networks, critics move by what the target is, not by how it depends on them."""
    update = told(by_gradient(make_update("sac", target_network=False)), 2.0 * NOISE, MORE)
    learner, rows = scattered_learner(update), some_rows()
    new, _, _ = improve(update, learner, rows)
    own = {**learner.parameters, "target": {"critic": learner.parameters["critic"]}}
    targets = targets_of(update, "sac", learner._replace(parameters=own), rows, 2.0 * NOISE.astype(np.float64))
    old = double(learner.parameters["critic"])
    expected = -gradient(regression(rows, targets), old)
    np.testing.assert_allclose(change(old, double(new.parameters["critic"])), expected, atol=2e-6)


def test_counts_of_the_record_are_exact() -> None:
    """Single precision has no odd whole number above 2^24."""
    update = make_update("ddpg")
    learner = update.init(jax.random.PRNGKey(0), 1)
    learner = learner._replace(clock=learner.clock._replace(updates=jnp.uint32(2**24 + 1)))
    _, record = jax.jit(update.report)(learner, update.begin(), jax.random.PRNGKey(0))
    assert float(record["n_updates"]) == 2**24 + 1


# -- what moves when --------------------------------------------------------------------------------------------------


def parts(learner: Any) -> dict[str, np.ndarray]:
    parameters, solver = learner.parameters, learner.solver
    trees = {
        "policy": parameters["policy"],
        "critic": parameters["critic"],
        "target": parameters["target"],
        "policy optimiser": solver["policy"],
        "temperature": parameters["temperature"],
        "temperature optimiser": solver["temperature"],
    }
    return {name: np.asarray(ravel_pytree(tree)[0]) for name, tree in trees.items()}


def moved(update: OffPolicy, learner: Any, n: int) -> list[set[str]]:
    """Return what moves in each of some updates."""
    told_of = []
    for i in range(n):
        before = parts(learner)
        learner, _, _ = improve(update, learner, some_rows(seed=i), key=i)
        after = parts(learner)
        told_of.append({name for name in before if np.any(before[name] != after[name])})
    return told_of


def test_a_delayed_policy_its_optimiser_and_the_targets_rest_and_move_together() -> None:
    resting, moving = {"critic"}, {"critic", "policy", "policy optimiser", "target"}
    update = make_update("td3", policy_delay=3, target_update_interval=3)
    assert moved(update, update.init(jax.random.PRNGKey(0), 1), 6) == [resting, resting, moving] * 2


def test_a_delayed_policy_of_sac_takes_its_temperature_with_it_and_targets_may_move_each_time() -> None:
    resting = {"critic", "target"}
    moving = {*resting, "policy", "policy optimiser", "temperature", "temperature optimiser"}
    update = make_update("sac", policy_delay=2)
    assert moved(update, update.init(jax.random.PRNGKey(0), 1), 4) == [resting, moving] * 2


def test_targets_move_by_a_count_of_all_updates_wherever_rounds_begin() -> None:
    """Two updates a round and an interval of 3: targets move in the 3rd and the 6th update of the run."""
    update = make_update("ddpg", gradient_steps=2, target_update_interval=3)
    learner, made, memory = update.init(jax.random.PRNGKey(0), 1), update.begin(), update.memory()
    changed = []
    for i in range(4):
        before = parts(learner)["target"]
        learner, _ = program(update)(learner, made, memory, steps(update, 1, i), jnp.float32(1), jax.random.PRNGKey(i))
        changed.append(bool(np.any(before != parts(learner)["target"])))
    assert changed == [False, True, True, False]


@pytest.mark.parametrize("n_seeds", [None, 3])
def test_a_policy_that_rests_is_not_computed(n_seeds: int | None) -> None:
    """The actor's choice is made in every third update alone, with several seeds in one program too."""
    calls: list[None] = []

    class Heard:
        def __init__(self, choice: Any) -> None:
            self.follows, self.noise, self._choice = choice.follows, choice.noise, choice

        def __call__(self, policy: Any, parameters: Any, features: Any, noise: Any) -> Any:
            jax.debug.callback(lambda: calls.append(None))
            return self._choice(policy, parameters, features, noise)

    update = make_update("td3", policy_delay=3)
    update = chosen_by(update, actor=Heard)

    def one(learner: Any, key: Any) -> Any:
        rows = jax.tree.map(jnp.asarray, some_rows())
        return update.improve(learner, update.begin().sums, rows, jnp.float32(1.0), key)[0]

    if n_seeds is not None:
        one = jax.vmap(one, (update.mapped[0], 0), update.mapped[0])
        learner = jax.vmap(lambda key: update.init(key, 1), out_axes=update.mapped[0])(
            jax.random.split(jax.random.PRNGKey(0), 3)
        )
        keys = jax.random.split(jax.random.PRNGKey(1), 3)
    else:
        learner, keys = update.init(jax.random.PRNGKey(0), 1), jax.random.PRNGKey(1)
    compiled, heard = jax.jit(one), []
    for _ in range(6):
        learner = compiled(learner, keys)
        jax.effects_barrier()
        heard.append(len(calls))
        calls.clear()
    assert [count > 0 for count in heard] == [False, False, True] * 2


def test_one_critic_of_td3_is_climbed_whatever_the_other_says() -> None:
    update = by_gradient(make_update("td3", policy_delay=1, learning_rate=1e-9))
    learner, rows = scattered_learner(update), some_rows()
    critic = dict(learner.parameters["critic"])
    critic["critic_1"] = jax.tree.map(lambda x: x - 5.0, critic["critic_1"])
    other = learner._replace(parameters={**learner.parameters, "critic": critic})
    still = replace(update.optimisers.critic, learning_rate=Constant(0.0))
    frozen = replace(update, optimisers=update.optimisers._replace(critic=still))
    (first, *_), (second, *_) = (improve(frozen, x, rows) for x in (learner, other))
    policies = [ravel_pytree(x.parameters["policy"])[0] for x in (first, second)]
    np.testing.assert_array_equal(policies[0], policies[1])
    assert np.any(policies[0] != ravel_pytree(learner.parameters["policy"])[0])


# -- identities -------------------------------------------------------------------------------------------------------


def test_sac_without_temperature_and_deviation_has_the_target_of_ddpg() -> None:
    """With equal parameters and targets that were copied; the deviation of e^-20 is nothing in single precision."""
    same: dict[str, Any] = {"tau": 1.0, "learning_rate": 1e-3}
    soft = make_update("sac", ent_coef=0.0, deviation="fixed", log_std_init=-20.0, n_critics=1, **same)
    hard = make_update("ddpg", **same)
    assert jax.tree.structure(soft.policy.init(jax.random.PRNGKey(0))) == jax.tree.structure(
        hard.policy.init(jax.random.PRNGKey(0))
    )
    learner = scattered_learner(hard)
    learner = hard.begin_with(learner, learner.parameters)
    ours = soft.begin_with(soft.init(jax.random.PRNGKey(0), 1), learner.parameters)
    (one, said, _), (other, told_of, _) = improve(soft, ours, some_rows()), improve(hard, learner, some_rows())
    for name in ("critic_loss", "td_error", "actor_loss", "actor_grad_norm"):
        assert said[name] == pytest.approx(told_of[name], rel=1e-5), name
    for name in ("critic", "policy"):
        np.testing.assert_allclose(
            ravel_pytree(one.parameters[name])[0], ravel_pytree(other.parameters[name])[0], atol=2e-6
        )


def test_a_subset_of_two_of_two_critics_is_the_twin_critics() -> None:
    whole = case("sac")
    successor: Any = whole.successor
    subset = replace(whole, successor=replace(successor, reduction=Least(2)))
    learner = scattered_learner(whole)
    new = [ravel_pytree(improve(x, learner, some_rows())[0].parameters)[0] for x in (whole, subset)]
    np.testing.assert_array_equal(new[0], new[1])


def test_a_subset_of_one_critic_takes_each_now_and_then() -> None:
    update = told(by_gradient(make_update("sac", n_critics_subset=1, ent_coef=0.0)), NOISE, MORE)
    learner, rows = scattered_learner(update), some_rows()
    parameters, successors = double(learner.parameters), np.asarray(rows.successors, np.float64)
    values = q_values(parameters["target"]["critic"], successors, drawn(parameters["policy"], successors, NOISE)[0])
    losses = [regression(rows, rows.rewards + rows.discounts * value)(parameters["critic"]) for value in values]
    said = [improve(update, learner, rows, key=i)[1]["critic_loss"] for i in range(8)]
    apart = np.abs(np.subtract.outer(said, losses))
    assert apart.min(axis=1).max() < 1e-5
    assert set(apart.argmin(axis=1)) == {0, 1}


def test_a_temperature_of_zero_multiplies_no_infinite_log_probability() -> None:
    part, slope = jax.value_and_grad(lambda x: entropy_part(jnp.float32(0.0), x))(-jnp.inf)
    assert (part, slope) == (0.0, 0.0)
    assert entropy_part(jnp.float32(0.5), jnp.float32(3.0)) == 1.5


def test_targets_follow_by_tau_and_are_copied_with_one() -> None:
    average, parameters = {"x": jnp.array([1.0, 2.0])}, {"x": jnp.array([3.0, -2.0])}
    np.testing.assert_allclose(polyak(average, parameters, 0.25)["x"], [1.5, 1.0])
    np.testing.assert_array_equal(polyak(average, parameters, 1.0)["x"], parameters["x"])


def test_learning_rates_follow_their_schedule() -> None:
    update = make_update("ddpg", learning_rate="linear:0.01")
    learner = update.init(jax.random.PRNGKey(0), 1)
    before, sizes = parts(learner)["critic"], []
    for left in (1.0, 0.5, 0.0):
        after = parts(improve(update, learner, some_rows(), remaining=left)[0])["critic"]
        sizes.append(np.abs(after - before).max())
    np.testing.assert_allclose(sizes, [0.01, 0.005, 0.0], rtol=1e-3)


# -- what is remembered is raw ----------------------------------------------------------------------------------------


def test_rewards_costs_and_observations_are_remembered_raw_and_made_of_use_when_drawn() -> None:
    r"""Costs come off first, :math:`r - \beta c`, and what is left is divided by the spread of its discounted sum."""
    settings = {"normalize_rewards": True, "normalize_observations": True, "cost_coef": 0.5, "gamma": 0.5, "n_envs": 2}
    update = make_update("ddpg", **settings, learning_starts=100, train_freq=6, log_every=6)
    shape = 3, 2
    rewards, costs = (np.random.default_rng(i).normal(size=shape).astype(np.float32) for i in range(2))
    trajectory = steps(update, 3, rewards=rewards, costs=costs)
    learner = update.init(jax.random.PRNGKey(0), 2)
    new, made = program(update)(
        learner, update.begin(), update.memory(), trajectory, jnp.float32(1.0), jax.random.PRNGKey(0)
    )
    recalled = update.happened(made)
    for name in ("observations", "actions", "rewards", "costs", "successors"):
        np.testing.assert_array_equal(getattr(recalled, name), getattr(trajectory, name), err_msg=name)

    worth, running, sums = rewards.astype(np.float64) - 0.5 * costs, np.zeros(2), []
    for row in worth:
        running = 0.5 * running + row
        sums.append(running)
    spread = np.sqrt(np.var(sums) + 1e-8)
    found = update._worth(new, jnp.asarray(rewards), jnp.asarray(costs))
    np.testing.assert_allclose(found, np.clip(worth / spread, -10.0, 10.0), rtol=1e-4)
    seen = np.asarray(trajectory.observations, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(new.observation_moments.mean, seen.mean(axis=0), rtol=1e-4)

    rows = some_rows()
    _, said, _ = improve(update, new, rows)
    observations = (rows.observations - seen.mean(axis=0)) / np.sqrt(seen.var(axis=0) + 1e-8)
    units = (np.asarray(rows.actions, np.float64) - MIDDLE) / HALF
    values = q_values(double(new.parameters)["critic"], np.clip(observations, -10.0, 10.0), units)
    assert said["q_mean"] == pytest.approx(mean(values[0], rows.weights), rel=1e-4)


def test_steps_without_a_cost_cost_nothing_and_several_costs_a_step_are_refused() -> None:
    update = make_update("ddpg", cost_coef=0.5, learning_starts=100)
    learner = update.init(jax.random.PRNGKey(0), 1)
    rewards, costs = jnp.array([1.0, 2.0]), jnp.array([4.0, ABSENT])
    np.testing.assert_array_equal(update._worth(learner, rewards, costs), [-1.0, 2.0])
    several = steps(update, 1, costs=np.ones((1, 1, 2), np.float32))
    with pytest.raises(UsageError, match="take one cost per step"):
        update.update(learner, update.begin(), update.memory(), several, jnp.float32(1.0), jax.random.PRNGKey(0))
