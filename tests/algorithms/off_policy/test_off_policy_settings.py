"""What off-policy methods refuse, in words, and what their settings stand for."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from replays import BOX, HALF, LOPSIDED, make_update

from jumar.algorithms.off_policy.cadence import parse_train_freq
from jumar.algorithms.off_policy.parts import target_entropy
from jumar.algorithms.off_policy.state_values import States
from jumar.algorithms.off_policy.temperature import Entropies, FixedTemperature, LearntTemperature, parse_temperature
from jumar.algorithms.registry import algorithm
from jumar.errors import UsageError
from jumar.policies.exploration import NoNoise, NormalNoise, OrnsteinUhlenbeckNoise, parse_noise
from jumar.policies.policy import make_policy
from jumar.schedules import Constant, Linear

NAMES = ("dpg", "ddpg", "td3", "sql", "sac")
FOR_DISCRETE = ("sql", "sac")


def refused(name: str, said: str, action_space: spaces.Space[Any] = LOPSIDED, **settings: Any) -> None:
    with pytest.raises(UsageError, match=said) as found:
        make_update(name, action_space, **settings)
    assert str(found.value).endswith(".")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.MultiDiscrete([2, 3]), "needs a Box( or Discrete)? action space, .* ppo takes"),
        (spaces.MultiBinary(2), "needs a Box( or Discrete)? action space, and this one is 2 switches; ppo takes"),
        (
            spaces.Box(-np.inf, np.inf, (2,)),
            r"finite bounds, and entry 0 of the action is in \[-inf, inf\]; .* train ppo",
        ),
        (spaces.Box(-1.0, np.inf, (2,)), r"finite bounds, .* \[-1, inf\]"),
        (
            spaces.Box(np.array([-1, 0.5], np.float32), np.array([1, 0.5], np.float32)),
            r"lower bound below the upper one .* entry 1 of the action is in \[0.5, 0.5\]",
        ),
    ],
)
def test_action_spaces_without_room_are_refused_by_every_method(name: str, space: Any, said: str) -> None:
    refused(name, said, space)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FOR_DISCRETE])
def test_discrete_actions_are_refused_where_a_policy_is_differentiated(name: str) -> None:
    said = "needs a Box action space, and this one is one of 2; ppo takes every action space"
    refused(name, said, spaces.Discrete(2))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("sac", {"action_noise": "normal:0.1"}, "action_noise=normal:0.1 needs a Box action space"),
        ("sac", {"use_sde": True}, "use_sde needs a Box action space"),
        ("sac", {"noise_repeat": 4}, "noise_repeat=4 needs a Box action space"),
        ("sql", {"use_sde": True}, "use_sde=true needs a Gaussian policy"),
        ("sql", {"critic_net_arch": (3,)}, "critic_net_arch: for Discrete actions the policy is the critic's network"),
        ("sql", {"critic_activation": "tanh"}, "critic_activation: for Discrete actions the policy is the critic's"),
        ("sql", {"critic_layer_norm": True}, "critic_layer_norm=true: for Discrete actions the policy is"),
        ("sql", {"ent_coef": 0.0}, "ent_coef=0.0 is out of range"),
        ("sql", {"ent_coef": 1e-6}, "ent_coef=1e-06 is out of range; for Discrete actions it must be at least 1e-05"),
    ],
)
def test_settings_that_do_not_fit_discrete_actions_are_refused(name: str, settings: dict[str, Any], said: str) -> None:
    refused(name, said, spaces.Discrete(3), **settings)


def test_a_joint_pass_has_no_soft_maximum_over_a_box() -> None:
    settings: dict[str, Any] = {"critic_batch_norm": True, "target_network": False}
    refused("sql", "critic_batch_norm without target_network judges one action", **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_policy": True, "n_steps": 2}, "n_steps=2 does not go with on_policy"),
        ({"critic": "compatible", "n_critics": 2}, "n_critics=2: there is one compatible critic"),
        ({"on_policy": True, "train_freq": "2:episodes"}, "train_freq=2:episodes does not go with on_policy"),
        (
            {"critic": "compatible", "critic_layer_norm": True},
            "critic_layer_norm=true: nothing lies between the layers",
        ),
        ({"critic": "compatible", "critic_batch_norm": True}, "critic_batch_norm=true: nothing lies between"),
        ({"critic": "compatible", "critic_dropout": 0.1}, "critic_dropout=0.1: nothing lies between"),
        ({"critic": "compatible", "critic_bins": 51}, "critic_bins=51: nothing lies between"),
        ({"critic": "compatible", "n_critics_subset": 1}, "n_critics_subset=1: there is one compatible critic"),
        ({"critic": "table"}, "unknown critic value .table.; known: network, compatible"),
    ],
)
def test_settings_of_dpg_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    refused("dpg", said, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 50, "buffer_size": 40}, "batch_size=50 is more than the memory holds, buffer_size=40"),
        ({"n_critics": 2, "n_critics_subset": 3}, "n_critics_subset=3 is more than n_critics=2"),
        ({"n_critics_subset": 0}, "n_critics_subset=0 is out of range: it must be at least 1"),
        ({"gradient_steps": 0}, "gradient_steps=0 learns nothing; it must be at least 1, or -1"),
        ({"gradient_steps": -2}, "gradient_steps=-2 is out of range"),
        ({"recurrent": "gru"}, "recurrent=gru: this method has no memory; ppo"),
        ({"critic_time": "scaled"}, "critic_time=scaled"),
        ({"squash": False}, "squash=false: actions of this method are always squashed"),
        ({"tau": 0.0}, "tau=0.0 is out of range: it must be above 0 and at most 1"),
        ({"tau": 1.5}, "tau=1.5 is out of range"),
        ({"policy_delay": 0}, "policy_delay=0 is out of range"),
        ({"learning_starts": -1}, "learning_starts=-1 is out of range"),
        ({"n_steps": 0}, "n_steps=0 is out of range"),
        ({"buffer_size": 0}, "buffer_size=0 is out of range"),
        (
            {"train_freq": "1:episodes", "n_envs": 2},
            "train_freq=1:episodes counts episodes, which needs n_envs=1, not 2",
        ),
        ({"critic_bins": 1}, "critic_bins=1 cannot tell values apart"),
        ({"critic_bins": -1}, "critic_bins=-1 is out of range"),
        ({"critic_limit": 0.0}, "critic_limit=0.0 is out of range: it must be above 0"),
        ({"noise_repeat": 0}, "noise_repeat=0 is out of range: it must be at least 1"),
        ({"action_noise": "pink:0.1"}, "action_noise=pink:0.1 is no noise; write none, normal:0.1 or ou:0.2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_words(settings: dict[str, Any], said: str) -> None:
    for name in NAMES:
        refused(name, said, **settings)


@pytest.mark.parametrize("name", ["ddpg", "td3"])
def test_a_deterministic_policy_has_no_noise_by_state(name: str) -> None:
    refused(name, "use_sde=true needs a policy that draws, and this one is deterministic; sac has one", use_sde=True)


@pytest.mark.parametrize(
    ("name", "setting", "owner"),
    [("sac", "clip_range", "ppo"), ("td3", "gae_lambda", "ppo"), ("ddpg", "ent_coef", "sac"), ("ppo", "tau", "ddpg")],
)
def test_settings_of_other_methods_name_whose_they_are(name: str, setting: str, owner: str) -> None:
    with pytest.raises(UsageError, match=f"{setting} is not a setting of {name}, but of .*{owner}"):
        algorithm(name).make_settings({setting: 0.1})


# -- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "by_episodes"),
    [(1, 1, False), ("64", 64, False), ("4:steps", 4, False), ("1:episodes", 1, True), ("2:episode", 2, True)],
)
def test_train_freq_is_steps_or_episodes(text: Any, count: int, by_episodes: bool) -> None:
    assert parse_train_freq(text) == (count, by_episodes)


@pytest.mark.parametrize(
    "text", [0, -1, "0:episodes", "x", "1:epochs", "1.5", "1.5:episodes", ":episodes", "", "nan", 2**31]
)
def test_any_other_train_freq_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match=f"train_freq={text}.*(1:episodes|at least 1)"):
        parse_train_freq(text)


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        (None, NoNoise()),
        ("normal:0.1", NormalNoise(Constant(0.1))),
        ("normal:linear:0.2", NormalNoise(Linear(0.2))),
        ("ou:0.2", OrnsteinUhlenbeckNoise(Constant(0.2))),
        ("normal:0", NormalNoise(Constant(0.0))),
    ],
)
def test_action_noise_is_normal_or_ou_with_a_number_or_a_schedule(text: str | None, noise: Any) -> None:
    assert parse_noise(text) == noise


def test_no_action_noise_is_typed_as_none() -> None:
    assert algorithm("ddpg").make_settings({"action_noise": "none"}).action_noise is None  # type: ignore[attr-defined]


WRONG_NOISES = [
    *(
        "normal",
        "normal:",
        "ou",
        "0.1",
        "Normal:0.1",
        "normal:x",
        "normal:-0.1",
        "ou:nan",
        "normal:inf",
        "normal:11",
        "",
    ),
    *("normal:linear", "normal:linear:-1", "normal:exponential:0", "normal:exponential:0.1:20", "normal:0.1:0.2"),
]


@pytest.mark.parametrize("text", WRONG_NOISES)
def test_any_other_action_noise_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"action_noise={text}"):
        parse_noise(text)


@pytest.mark.parametrize(
    ("text", "temperature"),
    [
        ("auto", LearntTemperature(1.0, -3.0)),
        ("auto:0.1", LearntTemperature(0.1, -3.0)),
        ("auto_0.1", LearntTemperature(0.1, -3.0)),
        (0.2, FixedTemperature(0.2)),
        ("0.2", FixedTemperature(0.2)),
        (0, FixedTemperature(0.0)),
    ],
)
def test_ent_coef_is_auto_or_a_number(text: Any, temperature: Any) -> None:
    assert parse_temperature(text, -3.0) == temperature


@pytest.mark.parametrize(
    "text",
    [
        "automatic",
        "auto:",
        "auto:x",
        "auto:0",
        "auto:-1",
        "auto:nan",
        "auto_",
        "-0.1",
        "0.1:0.2",
        "nan",
        "inf",
        "",
        "auto:inf",
    ],
)
def test_any_other_ent_coef_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"ent_coef={text} .*; write auto, auto:0.1 .* or a number of at least 0"):
        parse_temperature(text, -3.0)


def test_a_first_temperature_is_what_it_says() -> None:
    temperature = LearntTemperature(0.1, -3.0)
    assert float(temperature.value(temperature.init())) == pytest.approx(0.1)


def test_target_entropies_are_of_half_ranges_and_shifted_by_their_logarithms() -> None:
    r"""Over [-3, 1] x [0, 10] the half ranges are 2 and 5, so that :math:`\bar H = -2 + \log 10`."""
    policy = make_policy(BOX, LOPSIDED, algorithm("sac").make_settings({}))
    shift = math.log(10.0)
    assert math.log(np.prod(HALF)) == pytest.approx(shift)
    for text, nats in [("auto", -2.0), ("-d", -2.0), ("-d/2", -1.0), (-3.5, -3.5), ("0.25", 0.25)]:
        assert target_entropy(text, policy) == pytest.approx(nats + shift), text
    update = make_update("sac", target_entropy="-d/2")
    assert isinstance(update.temperature, LearntTemperature)
    assert update.temperature.target_entropy == pytest.approx(-1.0 + shift)
    assert make_update("sac").temperature == LearntTemperature(1.0, target_entropy("auto", policy))


def test_the_target_of_discrete_actions_is_a_share_of_what_masks_allow() -> None:
    """No policy over 2 actions reaches 0.7 log 10, so the temperature would grow without end."""
    update = make_update("sac", spaces.Discrete(10))
    temperature = update.temperature
    assert isinstance(temperature, LearntTemperature)
    masks = jnp.arange(10) < jnp.array([[2], [10], [5]])
    weights = jnp.array([1.0, 1.0, 0.0])
    allowed = update._allowed(States({}, masks, (3, 0)), weights)
    assert update._allowed(States({}, None, (3, 0)), weights) == 0.0
    reached = 0.7 * (math.log(2.0) + math.log(10.0)) / 2.0
    for entropy, sign in ((reached + 0.01, -1.0), (reached - 0.01, 1.0)):
        optimiser = update.optimisers.temperature
        before = temperature.init()
        entropies = Entropies(jnp.asarray(-entropy), allowed)
        after, _, _ = temperature.follow(before, optimiser.init(before), entropies, optimiser, jnp.ones(()))
        assert np.sign(after["log_alpha"] - before["log_alpha"]) == sign


def test_a_target_that_no_policy_reaches_is_refused() -> None:
    with pytest.raises(UsageError, match=r"target_entropy=2.31 is out of range; of 10 actions .* below .*, 2.3 nats"):
        make_update("sac", spaces.Discrete(10), target_entropy=2.31)
    temperature = make_update("sac", spaces.Discrete(10), target_entropy=2.3).temperature
    assert temperature == LearntTemperature(1.0, 2.3)


@pytest.mark.parametrize("text", ["automatic", "d", "-2d", "", "nan", "inf"])
def test_any_other_target_entropy_is_refused(text: str) -> None:
    policy = make_policy(BOX, LOPSIDED, algorithm("sac").make_settings({}))
    with pytest.raises(UsageError, match=f"target_entropy={text} is"):
        target_entropy(text, policy)


def test_learning_that_starts_after_the_end_is_said_to_teach_nothing() -> None:
    settings = algorithm("sac").make_settings({"learning_starts": 1000})
    assert settings.shortcoming(1001) is None
    words = settings.shortcoming(1000)
    assert words is not None
    assert words.startswith("learning_starts=1000 leaves none of 1000 steps to learn from")
    assert algorithm("ppo").make_settings({}).shortcoming(1) is None


def test_infos_that_are_kept_for_nothing_are_said() -> None:
    values = {"copy_info_dict": True, "learning_starts": 10}
    assert "copy_info_dict has no effect without goal_sel" in str(
        algorithm("sac").make_settings(values).shortcoming(11)
    )
    both = str(algorithm("sac").make_settings(values).shortcoming(10))
    assert "leaves none of 10 steps" in both
    assert "no effect" in both
    assert algorithm("sac").make_settings({**values, "goal_selection_strategy": "final"}).shortcoming(11) is None


def test_rounds_are_whole_steps_of_all_environments_and_make_up_a_line_of_the_log() -> None:
    for given, rows, rounds in [
        ({"train_freq": 1, "n_envs": 8, "log_every": 1000}, 1, 125),
        ({"train_freq": 20, "n_envs": 8, "log_every": 1000}, 3, 42),
        ({"train_freq": 64, "n_envs": 1, "log_every": 1}, 64, 1),
        ({"train_freq": "2:episodes", "n_envs": 1, "log_every": 10}, 1, 10),
    ]:
        settings = algorithm("td3").make_settings(given)
        assert (settings.rows_per_round, settings.rounds) == (rows, rounds)
