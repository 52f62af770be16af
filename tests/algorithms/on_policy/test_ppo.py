"""PPO held against an independent implementation in plain loops and double precision, and against its relatives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from updates import BOX, CONTINUOUS, experience, first_learner, flat, improve, make_update

from jumar.algorithms.on_policy.parts import count_minibatches
from jumar.algorithms.on_policy.ppo import PPOSettings
from jumar.algorithms.on_policy.update import OnPolicy, explained_variance
from jumar.errors import UsageError
from jumar.schedules import Constant
from jumar.solvers import Ascent, Epochs, Joint, Optimiser
from jumar.solvers.epochs import random_order
from jumar.solvers.objectives import Score
from jumar.trajectory import Trajectory

Row = dict[str, Any]


class Reference:
    """PPO for a Gaussian policy with one hidden tanh layer: loops over rows, double precision, numeric gradients."""

    def __init__(self, parameters: Any, settings: Row) -> None:
        self.template, self.settings = jax.device_get(parameters), settings

    def unravel(self, vector: np.ndarray) -> Any:
        leaves, tree = jax.tree.flatten(self.template)
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        parts = [part.reshape(leaf.shape) for part, leaf in zip(np.split(vector, ends), leaves, strict=True)]
        return jax.tree.unflatten(tree, parts)

    @staticmethod
    def layer(parameters: Any, x: np.ndarray) -> np.ndarray:
        return x @ parameters["kernel"] + parameters["bias"]

    def value(self, vector: np.ndarray, observation: np.ndarray) -> float:
        critic = self.unravel(vector)["critic"]
        hidden = np.tanh(self.layer(critic["torso"]["mlp"]["layer_0"], observation))
        return float(self.layer(critic["head"], hidden)[0])

    def log_prob(self, vector: np.ndarray, observation: np.ndarray, action: np.ndarray) -> float:
        policy = self.unravel(vector)["policy"]
        hidden = np.tanh(self.layer(policy["torso"]["mlp"]["layer_0"], observation))
        mean, log_std = self.layer(policy["head"]["mean"], hidden), policy["head"]["log_std"]
        z = (action - mean) / np.exp(log_std)
        return float(np.sum(-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)))

    def entropy(self, vector: np.ndarray) -> float:
        log_std = self.unravel(vector)["policy"]["head"]["log_std"]
        return float(np.sum(log_std + 0.5 * math.log(2 * math.pi * math.e)))

    def rows(self, vector: np.ndarray, trajectory: Trajectory) -> list[Row]:
        """Return the rows of a rollout, environment by environment, with their advantages and value targets."""
        gamma, lam = self.settings["gamma"], self.settings["gae_lambda"]
        data = jax.tree.map(lambda x: np.asarray(x, np.float64), trajectory)
        length, n_envs = data.rewards.shape
        rows = []
        for n in range(n_envs):
            column: list[Row] = []
            later = 0.0
            for t in reversed(range(length)):
                terminated, truncated = bool(data.terminated[t, n]), bool(data.truncated[t, n])
                value = self.value(vector, data.observations[t, n])
                future = 0.0 if terminated else self.value(vector, data.successors[t, n])
                delta = data.rewards[t, n] + gamma * future - value
                later = delta + (0.0 if terminated or truncated else gamma * lam * later)
                column.append(
                    {
                        "observation": data.observations[t, n],
                        "action": data.actions[t, n],
                        "log_prob": self.log_prob(vector, data.observations[t, n], data.actions[t, n]),
                        "value": value,
                        "advantage": later,
                        "return": later + value,
                        "valid": bool(data.valid[t, n]),
                    }
                )
            rows += reversed(column)
        return rows

    def objective(self, vector: np.ndarray, minibatch: list[Row]) -> float:
        s = self.settings
        minibatch = [row for row in minibatch if row["valid"]]
        advantages = np.array([row["advantage"] for row in minibatch])
        advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
        total = 0.0
        for row, advantage in zip(minibatch, advantages, strict=True):
            ratio = math.exp(self.log_prob(vector, row["observation"], row["action"]) - row["log_prob"])
            clipped = min(max(ratio, 1 - s["clip_range"]), 1 + s["clip_range"])
            value = self.value(vector, row["observation"])
            near = row["value"] + min(max(value - row["value"], -s["clip_range_vf"]), s["clip_range_vf"])
            loss = max((value - row["return"]) ** 2, (near - row["return"]) ** 2)
            total += min(ratio * advantage, clipped * advantage) - s["vf_coef"] * loss
        return total / len(minibatch) + s["ent_coef"] * self.entropy(vector)

    def gradient(self, vector: np.ndarray, minibatch: list[Row]) -> np.ndarray:
        step, slopes = 1e-6, np.zeros_like(vector)
        for i in range(len(vector)):
            there, back = vector.copy(), vector.copy()
            there[i] += step
            back[i] -= step
            slopes[i] = (self.objective(there, minibatch) - self.objective(back, minibatch)) / (2 * step)
        return slopes

    def iterate(self, vector: np.ndarray, trajectory: Trajectory, orders: list[np.ndarray]) -> np.ndarray:
        """Take all epochs; ``orders`` holds the order of the rows in each."""
        s, rows = self.settings, self.rows(vector, trajectory)
        first, second, count = np.zeros_like(vector), np.zeros_like(vector), 0
        for order in orders:
            for begin in range(0, len(rows), s["batch_size"]):
                gradient = self.gradient(vector, [rows[i] for i in order[begin : begin + s["batch_size"]]])
                gradient *= min(1.0, s["max_grad_norm"] / np.linalg.norm(gradient))
                count += 1
                first = 0.9 * first + 0.1 * gradient
                second = 0.999 * second + 0.001 * gradient**2
                unbiased = first / (1 - 0.9**count), second / (1 - 0.999**count)
                vector = vector + s["learning_rate"] * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-5)
        return vector


def test_an_iteration_agrees_with_an_independent_implementation() -> None:
    settings = {
        "gamma": 0.9,
        "gae_lambda": 0.8,
        "batch_size": 8,
        "clip_range": 0.05,
        "clip_range_vf": 0.02,
        "vf_coef": 0.7,
        "ent_coef": 0.03,
        "max_grad_norm": 0.5,
        "learning_rate": 0.03,
    }
    update = make_update(BOX, CONTINUOUS, net_arch=(3,), n_epochs=2, ortho_init=False, **settings)
    learner = first_learner(update)
    valid = np.ones((8, 2), bool)
    valid[3, 0] = False  # the row after the end of an episode in environment 0
    trajectory = experience(update, learner, valid=jnp.asarray(valid))
    new, record = improve(update, learner, trajectory, seed=3)
    orders = [np.asarray(random_order(key, 16)) for key in jax.random.split(jax.random.PRNGKey(3), 2)]

    reference = Reference(learner.parameters, settings)
    begin = np.concatenate([np.ravel(x) for x in jax.tree.leaves(reference.template)]).astype(np.float64)
    expected = reference.iterate(begin, trajectory, orders)
    np.testing.assert_allclose(flat(new.parameters), expected, atol=2e-5)
    assert np.abs(expected - begin).max() > 0.05, "something was learnt"
    assert record["clip_fraction"] > 0.1, "the clipping had a part in it"


def plain(update: OnPolicy, vf_coef: float = 0.5, **changes: Any) -> OnPolicy:
    """Return the update with one unclipped step of plain ascent on the whole batch."""
    return replace(update, solver=Joint(Epochs(Optimiser(Constant(1.0), optax.identity()), 1, 1), vf_coef), **changes)


def test_one_full_batch_epoch_is_a_plain_policy_gradient_step() -> None:
    """Computed by automatic differentiation of sum_i A_i log pi_i / n in double precision."""
    update = plain(make_update(BOX, CONTINUOUS), vf_coef=0.0)
    learner = first_learner(update)
    learner = learner._replace(solver=update.solver.init(learner.parameters))
    trajectory = experience(update, learner)
    new, _ = improve(update, learner, trajectory)
    batch = update.batch(learner, trajectory)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), learner.parameters["policy"])
        advantages = np.asarray(batch.advantages, np.float64)
        advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
        observations, actions = (np.asarray(x, np.float64) for x in (batch.features["vector"], batch.actions))

        def score(parameters: Any) -> Any:
            layer, head = parameters["torso"]["mlp"]["layer_0"], parameters["head"]
            hidden = jnp.tanh(observations @ layer["kernel"] + layer["bias"])
            mean = hidden @ head["mean"]["kernel"] + head["mean"]["bias"]
            z = (actions - mean) * jnp.exp(-head["log_std"])
            return jnp.mean(advantages * jnp.sum(-0.5 * z**2 - head["log_std"], -1))

        expected = flat(jax.grad(score)(wide))
    moved = {name: flat(new.parameters[name]) - flat(learner.parameters[name]) for name in ("policy", "critic")}
    np.testing.assert_allclose(moved["policy"], expected, atol=1e-6)
    assert np.abs(expected).max() > 0.01
    assert not moved["critic"].any(), "without a value loss the critic stays"


def test_one_full_batch_epoch_turns_ppo_into_a2c() -> None:
    ppo = make_update(BOX, CONTINUOUS, learning_rate=0.01, ent_coef=0.01)
    optimiser = Optimiser(Constant(0.01), optax.scale_by_adam(eps=1e-5), 0.5)
    a2c = replace(ppo, objective=Score(), solver=Joint(Ascent(optimiser), 0.5))
    learner = first_learner(ppo)
    trajectory = experience(ppo, learner)
    results = [improve(update, learner, trajectory)[0].parameters for update in (ppo, a2c)]
    np.testing.assert_allclose(flat(results[0]), flat(results[1]), atol=1e-6)


SEVERAL = {"n_epochs": 3, "batch_size": 8, "learning_rate": 0.01, "ent_coef": 0.01}


def test_without_a_common_norm_it_makes_no_difference_whether_the_gradient_is_joint() -> None:
    """The same minibatches, and Adam looks at each entry by itself."""
    both = [
        make_update(BOX, CONTINUOUS, max_grad_norm=None, joint_gradient=joint, **SEVERAL) for joint in (True, False)
    ]
    trajectory = experience(both[0], first_learner(both[0]))
    (joint, about_both), (apart, about_each) = (improve(update, first_learner(update), trajectory) for update in both)
    np.testing.assert_allclose(flat(apart.parameters), flat(joint.parameters), atol=1e-6)
    assert np.abs(flat(apart.parameters) - flat(first_learner(both[0]).parameters)).max() > 0.03
    for key in ("actor_loss", "value_loss", "entropy", "mean_kl", "approx_kl", "gradient_steps"):
        np.testing.assert_allclose(about_each[key], about_both[key], rtol=1e-4, atol=1e-6, err_msg=key)
    assert max(about_each["grad_norm"], about_each["critic_grad_norm"]) < about_both["grad_norm"]


def test_a_gradient_that_is_not_joint_has_two_norms_each_with_its_limit() -> None:
    limits = {"max_grad_norm": 1e-3, "optimizer": "sgd", "learning_rate": 1.0}
    for joint in (True, False):
        update = make_update(BOX, CONTINUOUS, joint_gradient=joint, **limits)
        learner = first_learner(update)
        new, _ = improve(update, learner, experience(update, learner))
        moved = [
            np.linalg.norm(flat(new.parameters[name]) - flat(learner.parameters[name])) for name in ("policy", "critic")
        ]
        lengths = [np.linalg.norm(moved)] if joint else moved
        np.testing.assert_allclose(lengths, 1e-3, rtol=1e-2)


def test_a_divergence_stops_the_policy_alone_where_the_gradient_is_not_joint() -> None:
    update = make_update(BOX, CONTINUOUS, joint_gradient=False, target_kl=1e-9, **SEVERAL)
    learner = first_learner(update)
    _, record = improve(update, learner, experience(update, learner))
    assert (record["stopped_early"], record["gradient_steps"]) == (1.0, 1.0)
    assert (record["critic_stopped_early"], record["critic_gradient_steps"]) == (0.0, 6.0)


def test_without_a_critic_there_is_one_gradient() -> None:
    update = make_update(joint_gradient=False, baseline="mean", advantage="to-go", optimizer="sgd")
    assert isinstance(update.solver, Joint)
    assert not update.apart


def test_advantages_cannot_be_made_anew_by_a_critic_that_climbs_beside() -> None:
    with pytest.raises(UsageError, match="recompute_advantages needs the critic after every pass"):
        make_update(joint_gradient=False, recompute_advantages=True)


def test_schedules_shrink_the_step_and_the_clip_range() -> None:
    update = make_update(learning_rate="linear:0.01", clip_range="linear:0.4")
    learner = first_learner(update)
    trajectory = experience(update, learner)
    whole, half = (improve(update, learner, trajectory, remaining=x)[0] for x in (1.0, 0.5))
    moves = [flat(new.parameters) - flat(learner.parameters) for new in (whole, half)]
    np.testing.assert_allclose(moves[1], moves[0] / 2, atol=1e-6)


def test_a_recurrent_policy_is_trained_with_whole_sequences() -> None:
    """A minibatch of half of the rows holds one of the two environments from its first step to its last."""
    update = make_update(recurrent="gru", recurrent_size=4, batch_size=8)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    batch = update.batch(learner, trajectory)
    assert batch.advantages.shape == (2, 8)
    assert update.completed(learner, trajectory).critic_carry.shape == (2, 4)
    np.testing.assert_array_equal(batch.features["vector"][1], trajectory.observations[:, 1])
    assert isinstance(update.solver, Joint)
    assert isinstance(update.solver.climber, Epochs)
    assert update.solver.climber.n_minibatches == 2


@pytest.mark.parametrize(
    ("given", "recurrent", "said"),
    [
        ({"batch_size": 100}, False, "nearest that fits is 96"),
        ({"batch_size": 1000}, False, "nearest that fits is 192"),
        ({"batch_size": 16}, True, "whole sequences of n_steps"),
    ],
)
def test_a_batch_size_that_does_not_fit_is_refused_with_one_that_does(given: Row, recurrent: bool, said: str) -> None:
    settings = PPOSettings.make({"n_envs": 4, "n_steps": 48, **given})
    with pytest.raises(UsageError, match=said):
        count_minibatches(settings, settings.batch_size, recurrent)


def test_explained_variance_is_1_for_a_perfect_critic_and_0_for_a_constant_one() -> None:
    returns, weights = jnp.array([1.0, 2.0, 4.0, 1e9]), jnp.array([1.0, 1.0, 1.0, 0.0])
    assert float(explained_variance(returns, returns, weights)) == 1.0
    assert float(explained_variance(jnp.full(4, 5.0), returns, weights)) == pytest.approx(0.0, abs=1e-6)
    assert float(explained_variance(-returns, returns, weights)) == pytest.approx(-3.0)
    assert float(explained_variance(returns, jnp.ones(4), weights)) == 0.0


def test_the_flight_record_holds_the_objective_before_and_after_by_the_same_estimates() -> None:
    update = make_update(BOX, CONTINUOUS, learning_rate=0.01, n_epochs=4)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    new, record = improve(update, learner, trajectory)
    batch = update.batch(learner, trajectory)
    log_probs = jax.jit(update.policy.evaluate)(new.parameters["policy"], batch).log_prob(batch.actions)
    advantages = np.asarray(batch.advantages, np.float64)
    advantages = (advantages - advantages.mean()) / advantages.std(ddof=1)
    ratios = np.exp(np.asarray(log_probs - batch.log_probs, np.float64))
    surrogate = np.minimum(ratios * advantages, np.clip(ratios, 0.8, 1.2) * advantages).mean()
    assert record["policy_objective_before"] == pytest.approx(0.0, abs=1e-6)
    assert record["policy_objective_after"] == pytest.approx(surrogate, rel=1e-4)
    assert surrogate > 0.01
