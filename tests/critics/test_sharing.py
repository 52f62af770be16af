"""One convolutional network for policy and critic: whose it is, what moves it, and who never shares."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from updates import CHOICES, CONTINUOUS, REPLAY_METHODS, ROLLOUT_METHODS, first_learner, flat, improve, make_update

from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.update import Learner
from jumar.critics.sharing import Unshared
from jumar.critics.state_values import Critic
from jumar.policies.policy import Policy
from jumar.trajectory import Trajectory

SHAPES = {"planes": (5, 5, 2), "speed": (2,)}
GRID = spaces.Dict({key: spaces.Box(0, 1, shape) for key, shape in SHAPES.items()})
ASCENT: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1.0, "max_grad_norm": None}


def rollout(update: OnPolicy) -> Trajectory:
    """Return two environments of eight steps, of which one ends in the middle and begins anew with other planes."""
    draw = np.random.default_rng(0)
    seen = {key: draw.random((9, 2, *shape)).astype(np.float32) for key, shape in SHAPES.items()}
    observations, successors = ({key: x[part] for key, x in seen.items()} for part in (slice(8), slice(1, 9)))
    truncated = np.zeros((8, 2), bool)
    truncated[3, 1] = True
    successors["planes"] = np.where(truncated[..., None, None, None], 0.5, successors["planes"]).astype(np.float32)
    return Trajectory(
        observations=observations,
        actions=jnp.asarray(draw.integers(0, 3, (8, 2)), jnp.int32),
        rewards=jnp.asarray(draw.normal(size=(8, 2)), jnp.float32),
        terminated=jnp.zeros((8, 2), bool),
        truncated=jnp.asarray(truncated),
        successors=successors,
        valid=jnp.ones((8, 2), bool),
        episode_start=jnp.zeros((8, 2), bool),
        log_probs=jnp.full((8, 2), -np.log(3.0), jnp.float32),
        action_masks=None,
        costs=None,
        carry=update.policy.initial_carry(2),
        critic_carry=update.critic.initial_carry(2),
    )


def with_critics_trunk(learner: Learner, trunk: Any) -> Learner:
    """Return the learner whose critic has a network of its own with the parameters ``trunk``."""
    critic = learner.parameters["critic"]
    critic = {**critic, "torso": {**critic["torso"], "image_0": trunk}}
    return learner._replace(parameters={**learner.parameters, "critic": critic})


def test_a_shared_network_is_moved_by_the_sum_of_both_gradients() -> None:
    shared, apart = (make_update(GRID, CHOICES, **ASCENT, share_features_extractor=share) for share in (True, False))
    learner = first_learner(shared)
    trunk = learner.parameters["policy"]["torso"]["image_0"]
    assert "image_0" not in learner.parameters["critic"]["torso"]
    own = with_critics_trunk(learner, trunk)
    new, record = improve(shared, learner, rollout(shared))
    other, expected = improve(apart, own._replace(solver=apart.solver.init(own.parameters)), rollout(apart))

    def change(after: Learner, half: str) -> np.ndarray:
        return flat(after.parameters[half]["torso"]["image_0"]) - flat(trunk)

    assert np.abs(change(other, "critic")).max() > 0.01
    np.testing.assert_allclose(change(new, "policy"), change(other, "policy") + change(other, "critic"), atol=1e-5)
    for half, part in (("policy", "head"), ("critic", "head"), ("critic", "torso")):
        one, both = (dict(after.parameters[half][part]) for after in (new, other))
        both.pop("image_0", None)
        np.testing.assert_allclose(flat(one), flat(both), atol=1e-5)
    assert record["explained_variance"] == pytest.approx(expected["explained_variance"], abs=1e-5)


def names_of(part: Policy | Critic) -> str:
    """Return the names of a network's parameters."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(part.init, jax.random.PRNGKey(0)))
    return " ".join(jax.tree_util.keystr(path) for path, _ in leaves)


SHARING = ("a2c", "ispg", "ppo", "ppo-penalty")


@pytest.mark.parametrize("name", sorted(ROLLOUT_METHODS + REPLAY_METHODS))
def test_who_shares_by_default(name: str) -> None:
    """Methods that climb one joint gradient; none that bounds the policy's own step."""
    update = make_update(GRID, CHOICES if name in ROLLOUT_METHODS else CONTINUOUS, name)
    policy, critic = names_of(update.policy), names_of(update.critic)
    assert "image_0" in policy
    assert ("image_0" in critic) == (bool(critic) and name not in SHARING)


def test_nothing_is_shared_without_a_joint_gradient_or_without_images() -> None:
    update = make_update(GRID, CHOICES, joint_gradient=False)
    assert "image_0" in names_of(update.critic)
    assert isinstance(make_update().sharing, Unshared)
