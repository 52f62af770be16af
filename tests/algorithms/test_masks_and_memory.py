"""Action masks and recurrent cores in every method that learns from rollouts: one update within masks, through a memory."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from updates import BOX, ROLLOUT_METHODS, experience, first_learner, improve, make_update, rows_of

from jumar.policies.distributions import Bernoulli, Categorical

SPACES: dict[str, gym.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(3),
}
SIZES = {"discrete": (4,), "multi_discrete": (3, 2), "multi_binary": (2, 2, 2)}
"""How many flags of a mask belong to each part of an action."""
CASES = [("discrete", "gru"), ("multi_discrete", "lstm"), ("multi_binary", "gru"), ("discrete", "lstm")]
"""What the methods get in turns: heads and cores know nothing of methods, and a program for each pair takes minutes."""


def masked_actions(kind: str) -> dict[str, np.ndarray]:
    """Return random actions ``[8, 2, ...]`` and masks that allow them, with something forbidden in every row."""
    rng = np.random.default_rng(4)
    actions = [rng.integers(n, size=(8, 2)) for n in SIZES[kind]]
    masks = [(rng.random((8, 2, n)) < 0.7) | one_hot(taken, n) for n, taken in zip(SIZES[kind], actions, strict=True)]
    masks[0] &= ~one_hot((actions[0] + 1) % SIZES[kind][0], SIZES[kind][0])
    chosen = actions[0] if kind == "discrete" else np.stack(actions, axis=-1)
    return {"actions": chosen.astype(np.int32), "action_masks": np.concatenate(masks, axis=-1)}


def one_hot(x: np.ndarray, n: int) -> np.ndarray:
    return np.arange(n) == x[..., None]


def probabilities(distribution: Any, sizes: tuple[int, ...]) -> np.ndarray:
    """Return the probability of every choice, in the order of a mask's flags."""
    if isinstance(distribution, Categorical):
        return np.asarray(distribution.probs)
    if isinstance(distribution, Bernoulli):
        pairs = jnp.stack([jax.nn.sigmoid(-distribution.logits), jax.nn.sigmoid(distribution.logits)], axis=-1)
        return np.asarray(pairs).reshape(*pairs.shape[:-2], -1)
    each = np.asarray(distribution.parts.probs)
    return np.concatenate([each[..., i, :n] for i, n in enumerate(sizes)], axis=-1)


def cores(parameters: Any) -> dict[str, np.ndarray]:
    """Return the arrays of all recurrent cores, by where they are."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(parameters)
    paths = {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
    return {path: x for path, x in paths.items() if "core" in path}


def case_of(name: str, place: int) -> tuple[str, str]:
    """Return the pair that a method gets; ACER's actions are Discrete."""
    return CASES[0] if name == "acer" else CASES[place % len(CASES)]


@pytest.mark.parametrize(
    ("name", "kind", "core"), [(name, *case_of(name, i)) for i, name in enumerate(sorted(ROLLOUT_METHODS))]
)
def test_an_update_obeys_masks_and_reaches_the_memory(name: str, kind: str, core: str) -> None:
    update = make_update(BOX, SPACES[kind], name, recurrent=core, recurrent_size=3, net_arch=())
    learner = first_learner(update)
    trajectory = experience(update, learner, **jax.tree.map(jnp.asarray, masked_actions(kind)))
    assert float(trajectory.log_probs.min()) > -20.0, "the actions taken are allowed"
    new, record = improve(update, learner, trajectory)
    assert record["finite"], record
    assert 0.0 < record["mean_kl"] < 1.0

    batch = rows_of(update, learner, trajectory)
    after = probabilities(jax.jit(update.policy.evaluate)(new.parameters["policy"], batch), SIZES[kind])
    forbidden = ~np.asarray(batch.action_masks)
    assert forbidden.any(axis=-1).all()
    np.testing.assert_array_equal(after[forbidden], 0.0)
    np.testing.assert_allclose(after.sum(axis=-1), len(SIZES[kind]), rtol=1e-5)

    before, later = cores(learner.parameters), cores(new.parameters)
    assert before.keys() == later.keys()
    assert any("policy" in path for path in before)
    assert any("critic" in path for path in before) == update.critic.recurrent
    still = [path for path, x in before.items() if np.array_equal(x, later[path])]
    assert not still
