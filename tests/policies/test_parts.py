"""Policies and critics that see different parts of a Dict observation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from probes import Corridor

import jumar
from jumar.critics.state_values import make_critic
from jumar.errors import UsageError
from jumar.networks.layers import Seen
from jumar.policies.observations import Encoder
from jumar.policies.policy import PolicySettings, make_policy

SPACE = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (36, 36, 1), np.uint8),
        "map": spaces.Box(0, 255, (36, 36, 2), np.uint8),
        "contact": spaces.MultiBinary(2),
        "friction": spaces.Box(0.0, 1.0, (3,), np.float32),
        "speed": spaces.Box(-1.0, 1.0, (1,), np.float32),
    }
)
"""The columns of the vector: contact 0 and 1, friction 2 to 4, speed 5."""


def encoder_of(acting: Any = None, judging: Any = None) -> Encoder:
    return Encoder.of(SPACE, normalise=True, acting=acting, judging=judging)


def test_parts_are_columns_and_images_by_number() -> None:
    encoder = encoder_of()
    assert encoder.seen(None) is None
    assert encoder.seen(tuple(SPACE)) is None, "all of them"
    assert encoder.seen(("speed", "contact")) == Seen(((0, 2), (5, 6)), ())
    assert encoder.seen(("contact", "friction", "map")) == Seen(((0, 5),), (1,)), "neighbours are one range"
    np.testing.assert_array_equal(Seen(((0, 2), (5, 6)), ()).of(jnp.arange(6.0)), [0.0, 1.0, 5.0])


def test_what_neither_sees_is_not_encoded() -> None:
    encoder = encoder_of(("camera", "speed"), ("speed", "friction"))
    assert [leaf.path[0] for leaf in encoder.leaves] == ["camera", "friction", "speed"]
    assert encoder.vector_size == 4


def observed(seed: int, *parts: str) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    every = {
        "camera": draw.integers(0, 256, (2, 36, 36, 1), np.uint8),
        "map": draw.integers(0, 256, (2, 36, 36, 2), np.uint8),
        "contact": draw.integers(0, 2, (2, 2)).astype(np.int8),
        "friction": draw.random((2, 3)).astype(np.float32),
        "speed": draw.random((2, 1)).astype(np.float32),
    }
    return {name: every[name] for name in parts or every}


def test_a_policy_needs_and_uses_its_own_parts_alone_and_a_critic_others() -> None:
    settings = PolicySettings(
        net_arch=(4,),
        critic_net_arch=(6, 5),
        critic_activation="relu",
        policy_observations=("speed", "map"),
        critic_observations=("map", "friction", "speed"),
        normalize_observations=True,
    )
    policy = make_policy(SPACE, spaces.Discrete(3), settings)
    critic = make_critic(policy.encoder, settings)
    assert critic.torso.sizes == (6, 5)
    assert critic.torso.activation == "relu"
    assert policy.torso.activation == "tanh"  # type: ignore[union-attr]
    parameters, moments = policy.init(jax.random.PRNGKey(0)), policy.encoder.initial_moments()
    assert set(parameters["torso"]) == {"image_0", "mlp"}, "the map is image 0, as the camera is seen by neither"
    one, other = observed(0), observed(1)
    mixed = {**one, **{name: other[name] for name in ("camera", "contact", "friction")}}
    here, there = (policy.encoder.encode(x, moments) for x in (one, mixed))
    logits = policy.at(parameters, here).logits  # type: ignore[union-attr]
    np.testing.assert_array_equal(logits, policy.at(parameters, there).logits)  # type: ignore[union-attr]
    values = critic.torso.init(jax.random.PRNGKey(1))
    latent = [critic.torso.apply(values, x, (), jnp.zeros((), bool))[0] for x in (here, there)]
    assert np.abs(latent[0] - latent[1]).max() > 1e-3, "friction is another one"
    few = policy.encoder.encode_to_act(observed(0, "map", "speed"), moments)
    np.testing.assert_array_equal(logits, policy.at(parameters, few).logits)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"policy_observations": ("spede",)}, "unknown part of the observation.*speed"),
        ({"critic_observations": "action_mask"}, "the mask of actions"),
        ({"critic_observations": ()}, "critic_observations is empty"),
        ({"policy_observations": 3}, "a list of names"),
    ],
)
def test_parts_that_are_not_there_are_refused(settings: dict[str, Any], said: str) -> None:
    masked = spaces.Dict({**SPACE.spaces, "action_mask": spaces.MultiBinary(3)})
    with pytest.raises(UsageError, match=said):
        make_policy(masked, spaces.Discrete(3), PolicySettings(**settings))


def test_parts_of_an_observation_without_any_are_refused() -> None:
    with pytest.raises(UsageError, match="names parts of a Dict observation, and this one is"):
        make_policy(SPACE["speed"], spaces.Discrete(3), PolicySettings(policy_observations=("speed",)))


def test_an_agent_is_trained_saved_and_deployed_on_its_own_parts(tmp_path: Path) -> None:
    """The file has what acting needs; the critic's parts need not be there any more."""
    agent = jumar.PPO(
        Corridor(),
        n_steps=16,
        batch_size=16,
        n_epochs=1,
        net_arch=(4,),
        policy_observations=("bit", "position"),
        critic_observations=("position", "goal"),
        normalize_observations=True,
    )
    agent.learn(32)
    agent.save(tmp_path / "agent")
    actor = jumar.load_policy(tmp_path / "agent")
    assert set(actor.observation_space) == {"bit", "position"}  # type: ignore[arg-type]
    observation, info = Corridor().reset(seed=3)
    own = {name: observation[name] for name in ("bit", "position")}
    mask = info["action_mask"]
    expected, _ = agent.predict(observation, action_masks=mask)
    np.testing.assert_array_equal(actor.predict(own, action_masks=mask)[0], expected)
    np.testing.assert_array_equal(actor.predict(observation, action_masks=mask)[0], expected)
    with pytest.raises(UsageError, match="the observation is without the part 'position'; the policy takes one"):
        actor.predict({"bit": 1})
