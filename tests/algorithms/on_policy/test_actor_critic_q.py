"""Actor-critic with a critic of actions: Q_w against the exact Q of small processes, and numbers by hand."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from updates import BOX, CHOICES, CONTINUOUS, experience, first_learner, improve, make_update, rows_of

import jumar
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.update import Learner
from jumar.critics.state_values import NoCritic, TakenActionCritic
from jumar.errors import UsageError
from jumar.estimators.advantages import ExpectedSarsa, Steps
from jumar.lab import families
from jumar.lab import tabular as exact
from jumar.lab.gradients import policy_gradient
from jumar.lab.tabular import TabularEnvironment, TabularMDP
from jumar.policies.distributions import Categorical
from jumar.trajectory import Trajectory

S, A, GAMMA = 3, 2, 0.5
NEXT = np.array([[1, 2], [2, 0], [0, 0]])
REWARDS = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 3.0]])
MDP = TabularMDP.of(np.eye(S)[NEXT], REWARDS, [0.5, 0.25, 0.25], GAMMA)
LOGITS = np.array([[0.3, -0.4], [1.0, 0.0], [-0.2, 0.7]])
TABULAR: dict[str, Any] = {
    "net_arch": (),
    "head_bias": False,
    "advantage": "q",
    "normalize_advantage": False,
    "gamma": GAMMA,
    "n_envs": S * A,
    "n_steps": 1,
    "batch_size": S * A,
}


def every_pair(update: OnPolicy, q: np.ndarray, **changes: Any) -> tuple[Learner, Trajectory]:
    """Return a learner with the logits and the table q, and one row of each pair of a state and an action."""
    n, table = S * A, lambda x: jnp.asarray(x, jnp.float32)
    learner = first_learner(update, n)
    learner.parameters["policy"]["head"] = {"logits": {"kernel": table(LOGITS)}}
    learner.parameters["critic"]["head"] = {"kernel": table(q), "bias": jnp.zeros(A)}
    states, actions = (x.reshape(1, n) for x in np.indices((S, A)))
    zeros, never = jnp.zeros((1, n)), jnp.zeros((1, n), bool)
    trajectory = Trajectory(
        observations=jnp.asarray(states, jnp.int32),
        actions=jnp.asarray(actions, jnp.int32),
        rewards=table(REWARDS.reshape(1, n)),
        terminated=never,
        truncated=never,
        successors=jnp.asarray(NEXT.reshape(1, n), jnp.int32),
        valid=~never,
        episode_start=never,
        log_probs=zeros,
        action_masks=None,
        costs=None,
        carry=update.policy.initial_carry(n),
        critic_carry=update.critic.initial_carry(n),
    )
    return learner, trajectory._replace(**changes)


def tabular(**settings: Any) -> OnPolicy:
    return make_update(spaces.Discrete(S), spaces.Discrete(A), "reinforce", **{**TABULAR, **settings})


# -- numbers by hand --------------------------------------------------------------------------------------------------


def test_advantages_and_targets_by_hand() -> None:
    """V' = 2.5 and gamma = 0.8: 1 + 0.8 * 2.5 = 3; a termination leaves 1, a time limit bootstraps."""
    ones = jnp.ones((3, 1))
    q = jnp.array([[2.0], [3.0], [2.5]])
    steps = Steps.on_policy(
        rewards=ones,
        values=2.5 * ones,
        successor_values=2.5 * ones,
        terminated=jnp.array([[False], [True], [False]]),
        truncated=jnp.array([[False], [False], [True]]),
    )._replace(action_values=q)
    made = ExpectedSarsa(0.8)(steps)
    np.testing.assert_allclose(made.targets, [[3.0], [1.0], [3.0]])
    np.testing.assert_allclose(made.advantages, [[-0.5], [0.5], [0.0]])
    np.testing.assert_allclose(ExpectedSarsa(0.8, baseline=False)(steps).advantages, q)
    with pytest.raises(ValueError, match="needs the values of actions"):
        ExpectedSarsa(0.8)(steps._replace(action_values=None))


def test_the_update_values_states_by_the_mean_over_the_policy_by_hand() -> None:
    """With all Q(s, .) = (2, 3) and pi(.|0) = (e^0.3, e^-0.4) / Z = (0.66819, 0.33181): V(0) = 2.33181."""
    update = tabular(baseline="critic")
    learner, trajectory = every_pair(update, np.tile([2.0, 3.0], (S, 1)))
    batch = rows_of(update, learner, trajectory)
    np.testing.assert_allclose(batch.advantages[:2], [-0.331812, 0.668188], atol=1e-5)
    np.testing.assert_array_equal(batch.values, [2.0, 3.0] * S)
    # The successor of state 2 is state 0, whatever is done: 0 + 0.5 * 2.331812 and 3 + 0.5 * 2.331812.
    np.testing.assert_allclose(batch.returns[4:], [1.165906, 4.165906], atol=1e-5)
    cut = trajectory._replace(terminated=jnp.ones((1, S * A), bool))
    np.testing.assert_allclose(rows_of(update, learner, cut).returns, REWARDS.reshape(-1), atol=1e-6)


# -- against the exact values -----------------------------------------------------------------------------------------


def test_repeated_regression_leads_to_the_exact_values_and_advantages() -> None:
    update = tabular(baseline="critic")
    policy = Categorical(jnp.asarray(LOGITS, jnp.float32))
    q = np.zeros((S, A))
    for _ in range(30):  # the error halves each time
        q = np.asarray(rows_of(update, *every_pair(update, q)).returns).reshape(S, A)
    np.testing.assert_allclose(q, exact.action_values(MDP, policy), atol=1e-5)
    batch = rows_of(update, *every_pair(update, q))
    np.testing.assert_allclose(batch.advantages.reshape(S, A), exact.advantages(MDP, policy), atol=1e-5)
    np.testing.assert_allclose(batch.returns, q.reshape(-1), atol=1e-5)


@pytest.mark.parametrize("baseline", ["critic", "none", "mean"])
def test_the_exact_gradient_does_not_depend_on_the_baseline(baseline: str) -> None:
    """The sum over the pairs, weighed by visits and probabilities, of the score times Q, or Q - V, is the gradient of J."""
    update = tabular(baseline=baseline)
    logits = jnp.asarray(LOGITS, jnp.float32)
    policy = Categorical(logits)
    learner, trajectory = every_pair(update, np.asarray(exact.action_values(MDP, policy)))
    batch = rows_of(update, learner, trajectory)
    weights = (exact.visitation(MDP, policy)[:, None] * policy.probs).reshape(-1)
    prepared = update._prepare(batch._replace(weights=weights))

    def objective(logits: jax.Array) -> jax.Array:
        at = Categorical(jnp.repeat(logits, A, axis=0))
        return jnp.sum(weights * at.log_prob(batch.actions) * prepared.advantages)

    expected = policy_gradient(MDP, families.softmax(MDP), logits.reshape(-1))
    np.testing.assert_allclose(jax.grad(objective)(logits).reshape(-1), expected, atol=1e-5)


def test_an_agent_s_critic_learns_the_exact_values_of_its_policy() -> None:
    agent = jumar.REINFORCE(
        TabularEnvironment(MDP, time_limit=6),
        n_envs=16,
        n_steps=8,
        gamma=GAMMA,
        net_arch=(),
        head_bias=False,
        advantage="q",
        baseline="critic",
        learning_rate=1e-9,
        batch_size=128,
        n_critic_updates=100,
        critic_learning_rate=0.03,
    )
    agent.learn(16 * 8 * 20)
    critic, parameters = vars(agent._training.update)["critic"], agent._training.learner.parameters["critic"]
    assert isinstance(critic, TakenActionCritic)
    table = np.asarray(parameters["head"]["kernel"] + parameters["head"]["bias"])
    actor = agent.actor()
    policy = families.network_policy(MDP, actor.policy, actor.parameters, actor.moments)
    np.testing.assert_allclose(table, exact.action_values(MDP, policy), atol=0.02)


# -- methods and settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["critic", "none"])
def test_masked_actions_have_no_part_in_the_values_of_states(baseline: str) -> None:
    update = make_update(BOX, CHOICES, "a2c", advantage="q", baseline=baseline)
    learner = first_learner(update)
    masks = jnp.ones((8, 2, 3), bool).at[..., 2].set(False)
    trajectory = experience(update, learner, action_masks=masks)
    batch = rows_of(update, learner, trajectory)
    outputs = update.critic.outputs(learner.parameters["critic"], batch)  # type: ignore[attr-defined]
    at = update.policy.evaluate(learner.parameters["policy"], batch)
    assert isinstance(at, Categorical)
    np.testing.assert_array_equal(at.probs[:, 2], np.zeros(16))
    values = np.sum(np.asarray(at.probs)[:, :2] * np.asarray(outputs)[:, :2], axis=-1)
    taken = np.asarray(outputs)[np.arange(16), np.asarray(batch.actions)]
    expected = taken - values if baseline == "critic" else taken
    np.testing.assert_allclose(batch.advantages, expected, atol=1e-5)


def test_a_recurrent_actor_critic_learns() -> None:
    settings = {"recurrent": "gru", "recurrent_size": 3, "net_arch": ()}
    update = make_update(BOX, CHOICES, "a2c", advantage="q", **settings)
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert record["finite"]
    assert np.any(new.parameters["critic"]["head"]["kernel"] != learner.parameters["critic"]["head"]["kernel"])


@pytest.mark.parametrize(
    "name", ["a2c", "acktr", "npg", "ppo", "ppo-penalty", "reinforce", "restricted", "tnpg", "trpo"]
)
def test_every_method_of_the_newest_rollout_takes_it_with_every_baseline(name: str) -> None:
    for baseline in ("critic", "mean", "none"):
        update = make_update(BOX, CHOICES, name, advantage="q", baseline=baseline)
        assert isinstance(update.critic, TakenActionCritic)
        assert update.estimator == ExpectedSarsa(update.estimator.gamma, baseline == "critic")  # type: ignore[attr-defined]
    assert isinstance(make_update(BOX, CHOICES, name, advantage="to-go", baseline="none").critic, NoCritic)


@pytest.mark.parametrize(
    ("name", "space", "said"),
    [
        ("ppo", CONTINUOUS, "advantage=q needs a Discrete action space: its critic has a value for each action"),
        ("trpo", spaces.MultiDiscrete([2, 2]), "advantage=q needs a Discrete action space"),
        ("acktr", CONTINUOUS, "advantage=q needs a Discrete action space"),
        ("ispg", CHOICES, "advantage=q is for methods that learn from the newest rollout alone"),
        ("cpo", CHOICES, "advantage=q values actions by rewards alone, and cpo needs advantages of costs too"),
    ],
)
def test_what_does_not_go_with_values_of_actions_is_refused(name: str, space: gym.Space[Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_update(BOX, space, name, advantage="q")
