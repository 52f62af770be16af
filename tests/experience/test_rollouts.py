"""What is kept of earlier rollouts: the newest few, as they were made, in any space."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from updates import BOX, CHOICES, CONTINUOUS, experience, first_learner, make_update

from jumar.experience.rollouts import Recent, Rollout, kept, pushed, side_by_side
from jumar.policies.observations import Encoder


def rollouts(update: Any, n: int, **changes: Any) -> list[Rollout]:
    learner = first_learner(update)
    return [
        Rollout(experience(update, learner, seed=seed, **changes), jnp.array([seed, 2 * seed], jnp.int32))
        for seed in range(n)
    ]


def same(first: Any, second: Any) -> None:
    leaves = jax.tree.leaves(first), jax.tree.leaves(second)
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_newest_rollouts_are_kept_and_stand_side_by_side_the_newest_first() -> None:
    update, part = make_update(BOX, CONTINUOUS, "ppo"), Recent(3, 8)
    add = jax.jit(lambda state, new: part.add(state, new, update.policy))
    made = rollouts(update, 5)
    state = part.init(update.policy, update.critic, 2)
    joined = side_by_side(state)
    assert not joined.trajectory.valid.any()
    for count, new in enumerate(made, 1):
        joined, state = add(state, new)
        assert jax.tree.structure(joined) == jax.tree.structure(side_by_side(state))
        newest = made[max(0, count - 3) : count][::-1]
        valid = [new.trajectory.valid for new in newest] + [np.zeros((8, 2), bool)] * (3 - len(newest))
        np.testing.assert_array_equal(joined.trajectory.valid, np.concatenate(valid, 1))
    trajectories = [new.trajectory for new in made[:1:-1]]
    for name in ("observations", "actions", "rewards", "terminated", "truncated", "log_probs", "episode_start"):
        expected = np.concatenate([getattr(x, name) for x in trajectories], 1)
        np.testing.assert_array_equal(getattr(joined.trajectory, name), expected, name)
    np.testing.assert_array_equal(joined.ages, [4, 8, 3, 6, 2, 4])


def test_memories_and_masks_are_kept_with_their_rows() -> None:
    update, part = make_update(BOX, CHOICES, "ppo", recurrent="lstm", recurrent_size=4), Recent(2, 8)
    state = part.init(update.policy, update.critic, 2)
    masks = np.random.default_rng(0).random((8, 2, 3)) < 0.5
    masks[..., 0] = True
    made = rollouts(update, 2)
    carry = jax.tree.map(lambda x: x + 1.0, made[0].trajectory.critic_carry)
    made[0] = made[0]._replace(
        trajectory=made[0].trajectory._replace(action_masks=jnp.asarray(masks), critic_carry=carry)
    )
    for new in made:
        state = pushed(state, kept(new, update.policy))
    joined = side_by_side(state)
    same(jax.tree.map(lambda x: x[2:], joined.trajectory.critic_carry), carry)
    same(jax.tree.map(lambda x: x[:2], joined.trajectory.critic_carry), made[1].trajectory.critic_carry)
    # The environment gave none with the second rollout: all actions were allowed.
    np.testing.assert_array_equal(joined.trajectory.action_masks, np.concatenate([np.ones((8, 2, 3)), masks], 1))


NESTED = spaces.Dict(
    {
        "parts": spaces.Tuple([spaces.Discrete(4, start=2), spaces.Box(-1.0, 1.0, (2, 2), np.float64)]),
        "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
        "bits": spaces.MultiBinary(3),
        "choices": spaces.MultiDiscrete([3, 2]),
        "action_mask": spaces.MultiBinary(3),
    }
)


@pytest.mark.parametrize("space", [NESTED, BOX], ids=["nested", "plain"])
def test_what_is_kept_of_an_observation_encodes_to_the_same(space: Any) -> None:
    encoder = Encoder.of(space, normalise=True, mask_size=3)
    space.seed(1)
    observation = space.sample()
    stored = encoder.keep(observation)
    moments = encoder.initial_moments()._replace(mean=jnp.ones(encoder.vector_size))
    same(encoder.encode(stored, moments), encoder.encode(observation, moments))
    blank = encoder.blank(())
    assert jax.tree.structure(blank) == jax.tree.structure(stored)
    for one, other in zip(jax.tree.leaves(blank), jax.tree.leaves(stored), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    if space is NESTED:
        assert "action_mask" not in stored


SPACES = {
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(3),
    "discrete": spaces.Discrete(3, start=-1),
    "box": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
}


@pytest.mark.parametrize("kind", SPACES)
def test_every_action_space_has_a_place_for_its_actions(kind: str) -> None:
    update = make_update(BOX, SPACES[kind], "ppo")
    part = Recent(2, 8)
    state = part.init(update.policy, update.critic, 2)
    new = rollouts(update, 1)[0]
    joined, after = part.add(state, new, update.policy)
    np.testing.assert_array_equal(joined.trajectory.actions[:, :2], new.trajectory.actions)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
