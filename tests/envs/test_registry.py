"""From what a user types to an environment, and what is never imported."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from jumar.envs import gymnasium_factory, pool
from jumar.envs.gymnasium_factory import GymnasiumFactory
from jumar.envs.host import SerialEnvironments
from jumar.envs.registry import (
    EnvironmentId,
    Settings,
    list_environments,
    make_compiled,
    make_host,
    parse_assignments,
    parse_wrapper,
    resolve,
)
from jumar.envs.workers import WorkerEnvironments
from jumar.errors import DamagedFile, EnvironmentFault, UsageError

needs_envpool = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="EnvPool is not installed")


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that writes a user's module where it can be imported, and forgets it after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setitem(sys.modules, name, None)  # so that monkeypatch removes it in the end
        del sys.modules[name]

    return write


# --- which backend ---


@pytest.mark.parametrize(
    ("text", "options", "full_name"),
    [
        ("CartPole-v1", {}, "envpool/CartPole-v1"),
        ("CartPole-v1", {"kwargs": {"max_episode_steps": 9}}, "envpool/CartPole-v1"),
        ("CartPole-v1", {"kwargs": {"sutton_barto_reward": True}}, "gymnasium/CartPole-v1"),
        ("CartPole-v1", {"frame_stack": 2}, "gymnasium/CartPole-v1"),
        ("CartPole-v1", {"wrappers": ["FlattenObservation"]}, "gymnasium/CartPole-v1"),
        ("CartPole-v1", {"workers": 2}, "gymnasium/CartPole-v1"),
        ("gymnasium/CartPole-v1", {}, "gymnasium/CartPole-v1"),
        ("envpool/CartPole-v1", {}, "envpool/CartPole-v1"),
        ("jax/CartPole-v1", {}, "jax/CartPole-v1"),
        ("gymnasium/phys2d/CartPole-v1", {}, "gymnasium/phys2d/CartPole-v1"),
        ("faulty:Walk-v0", {}, "gymnasium/faulty:Walk-v0"),
        ("gymnasium/faulty:Walk-v0", {}, "gymnasium/faulty:Walk-v0"),
    ],
)
@needs_envpool
def test_an_id_is_resolved_to_its_backend(text: str, options: dict[str, Any], full_name: str) -> None:
    found = resolve(text, **options)
    assert found.full_name == full_name
    assert found.text == text
    assert found.compiled == (found.backend == "jax")
    again = resolve(found.full_name, **{key: value for key, value in options.items() if key != "workers"})
    assert again.full_name == full_name


def test_without_envpool_it_is_gymnasium_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "installed", lambda: False)
    assert resolve("CartPole-v1").backend == "gymnasium"
    with pytest.raises(UsageError, match=r"needs EnvPool, which is not installed: pip install 'jumar\[envpool\]'"):
        resolve("envpool/CartPole-v1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("HalfCheetah", "unknown environment 'HalfCheetah'; did you mean HalfCheetah-v5 or HalfCheetah-v4"),
        ("cartpole-v1", "did you mean CartPole-v1"),
        ("CartPole-v7", "did you mean CartPole-v1"),
        ("CartPloe-v1", "did you mean CartPole-v1"),
        ("gymnasium/cartpole", "did you mean gymnasium/CartPole-v1"),
        ("gymnasum/CartPole-v1", "did you mean CartPole-v1"),
        ("jax/Pendulum", "did you mean jax/Pendulum-v1"),
        ("Qwertzuiop-v3", "jumar list envs shows all"),
        ("", "write an id such as CartPole-v1"),
        ("-- v", "write an id such as CartPole-v1"),
        ("brax/mine:Name", "write an id such as CartPole-v1"),
        ("3d:Walk-v0", "'3d' is no name of a Python module"),
        ("nowhere_at_all:Walk-v0", "there is no module 'nowhere_at_all'"),
        ("faulty:Wakl-v0", r"unknown environment 'faulty:Wakl-v0'; did you mean faulty:Walk-v0"),
        (200 * "jax/CartPole-v1", "id has at most 300 characters, and this one has 3,000: .jax/CartPole-v1jax"),
        ("faulty:CartPloe-v1", r"did you mean faulty:[\w-]+( or faulty:[\w-]+)*\?$"),
        ("json:Walk-v7", "unknown environment 'json:Walk-v7'; json has registered none"),
    ],
)
def test_an_unknown_id_gets_the_nearest_ones(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(text)


def test_an_environment_of_a_file_in_this_folder_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"did you mean CartPole-v1.*\? \(One of your own is module:EnvId\.\)"):
        resolve("CartPloe-v1")
    Path("cartploe.py").touch()
    with pytest.raises(
        UsageError, match="unknown environment 'CartPloe-v1'; did you mean cartploe:CartPloe-v1 or CartPole-v1"
    ):
        resolve("CartPloe-v1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jumar.lab.worlds:CliffWalk", r"did you mean jax/jumar\.lab\.worlds:CliffWalk, a compiled environment\?"),
        (
            "faulty:FaultyReset",
            r'register it there: gymnasium\.register\(id="FaultyReset-v0", entry_point="faulty:FaultyR',
        ),
    ],
)
def test_a_class_in_a_module_is_no_id(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(text)


@pytest.mark.parametrize("package", ["gymnax", "brax"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=rf"needs {package}, which is not installed: pip install 'jumar\[{package}\]'"):
        resolve(f"{package}/ant")


def test_missing_mujoco_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: Any, **__: Any) -> None:
        raise gym.error.DependencyNotInstalled('No module named mujoco. (HINT: run `pip install "gymnasium[mujoco]"`.)')

    monkeypatch.setattr(gym, "make", make)
    with pytest.raises(UsageError, match=r"cannot make HalfCheetah-v5: No module named mujoco"):
        GymnasiumFactory("HalfCheetah-v5")()
    monkeypatch.setattr(gymnasium_factory.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"HalfCheetah-v5 needs MuJoCo.*pip install 'jumar\[mujoco\]'"):
        GymnasiumFactory("HalfCheetah-v5")()


# --- modules, and what may be imported ---


def test_errors_in_a_user_s_module_are_shown_with_their_line(write_module: Callable[[str, str], None]) -> None:
    write_module("broken_module", "x = 1\nraise ValueError('not today')\n")
    with pytest.raises(
        UsageError, match=r"importing broken_module raised ValueError: not today \(broken_module.py:2\)"
    ):
        resolve("broken_module:Walk-v0")
    write_module("unwritten", "x = = 1\n")
    with pytest.raises(UsageError, match=r"importing unwritten raised SyntaxError: .* \(unwritten.py:1\)"):
        resolve("unwritten:Walk-v0")
    write_module("needing", "import not_there_at_all\n")
    with pytest.raises(UsageError, match="importing needing raised ModuleNotFoundError: No module named 'not_there_at"):
        resolve("needing:Walk-v0")


@pytest.mark.parametrize("backend", ["gymnasium", "jax"])
def test_a_module_named_by_a_file_is_never_imported(write_module: Callable[[str, str], None], backend: str) -> None:
    write_module("canary", "raise SystemExit('imported')\n")
    data = resolve("faulty:Walk-v0").to_json() | {"backend": backend, "module": "canary"}
    found = EnvironmentId.from_json(json.loads(json.dumps(data)))
    own = "jax/canary:Walk-v0" if backend == "jax" else "canary:Walk-v0"
    with pytest.raises(UsageError, match=f"'canary'.*repeat --env {own}"):
        make_compiled(found) if backend == "jax" else make_host(found, 1)
    assert "canary" not in sys.modules


@pytest.mark.parametrize(
    "change",
    [
        {"name": "canary:Walk-v0"},
        {"name": "jax/canary:Walk"},
        {"name": 3},
        {"module": "a b"},
        {"module": 3},
        {"backend": "pickle"},
        {"kwargs": [1]},
        {"kwargs": {"x": {"y": 1}}},
        {"frame_stack": 0},
        {"frame_stack": True},
        {"frame_stack": 10**9},
        {"backend": ["jax"]},
        {"text": "\x1b[2J"},
        {"text": "x" * 10_000},
        {"kwargs": {"x": [[[float("inf")]]]}},
        {"wrappers": [["TimeLimit"]]},
        {"wrappers": [["ClipReward", {}]] * 1000},
        {"wrappers": [["os.system", {}]]},
        {"wrappers": [["os:system:ls", {}]]},
        {"wrappers": [["a b:Name", {}]]},
        {"wrappers": [["RecordVideo", {"video_folder": "/"}]]},
        {"wrappers": 3},
        {"more": 1},
    ],
)
def test_malformed_descriptions_are_refused(change: dict[str, Any]) -> None:
    good = resolve("gymnasium/CartPole-v1").to_json()
    assert EnvironmentId.from_json(good)
    with pytest.raises(DamagedFile, match=f"the entry '?{next(iter(change))}"):
        EnvironmentId.from_json(good | change)


def test_an_id_survives_being_written_down() -> None:
    found = resolve(
        "gymnasium/CartPole-v1",
        {"sutton_barto_reward": True, "render_mode": None},
        frame_stack=3,
        wrappers=["ClipReward:min_reward=-1,max_reward=0.5", ("TimeLimit", {"max_episode_steps": 7})],
    )
    back = EnvironmentId.from_json(json.loads(json.dumps(found.to_json())))
    assert back == found
    assert hash(back) == hash(found)
    assert (found.typed, back.typed) == (True, False)
    make_host(back, 1).close()  # no module of the user's: nothing to allow


# --- settings and wrappers ---


def test_assignments_are_read_as_what_they_look_like() -> None:
    words = ["a=true", "b=False", "c=none", "d=3", "e=-3.5", "f=1e-3", "g=[1,[2]]", "h=text", "i=", "j=a=b"]
    words += ["k=1_000", "l=inf", "m=0x1", "n=.5", 'o="3"']
    assert parse_assignments(words) == {
        "a": True,
        "b": False,
        "c": None,
        "d": 3,
        "e": -3.5,
        "f": 1e-3,
        "g": [1, [2]],
        "h": "text",
        "i": "",
        "j": "a=b",
        "k": "1_000",
        "l": "inf",
        "m": "0x1",
        "n": 0.5,
        "o": "3",
    }
    assert type(parse_assignments(["d=3"])["d"]) is int
    assert parse_wrapper("ReshapeObservation:shape=[2,2],x=1") == ("ReshapeObservation", {"shape": [2, 2], "x": 1})


@pytest.mark.parametrize(
    ("wrapper", "shape"),
    [
        ("ReshapeObservation:shape=[2,2]", (2, 2)),
        ("FlattenObservation", (4,)),
        ("FrameStackObservation:stack_size=3", (3, 4)),
    ],
)
def test_lists_that_are_typed_are_the_tuples_that_wrappers_of_gymnasium_take(
    wrapper: str, shape: tuple[int, ...]
) -> None:
    environments = make_host(resolve("gymnasium/CartPole-v1", wrappers=[wrapper]), 1)
    assert environments.observation_space.shape == shape
    environments.close()


@pytest.mark.parametrize("words", [["a"], ["=3"], ["a=1", "a=2"], ["a=[1"], ["a b=1"]])
def test_malformed_assignments_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_assignments(words)


def test_settings_hold_plain_data_only() -> None:
    assert dict(Settings({"b": (1, 2), "a": None})) == {"a": None, "b": [1, 2]}
    for value in (np.float64(3), lambda: 0, {"x": 1}, float("nan"), [[1, object()]]):
        with pytest.raises(UsageError, match="the setting x"):
            Settings({"x": value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kwargs": {"sutton_reward": 1}}, "unknown setting of CartPole-v1 'sutton_reward'; did you mean sutton_barto"),
        ({"kwargs": {"max_episode_steps": -3}}, "cannot make CartPole-v1 with max_episode_steps=-3: .*positive"),
        ({"frame_stack": 0}, "the frame stack is 0"),
        ({"wrappers": ["Grayscale"]}, "unknown wrapper of Gymnasium 'Grayscale'; did you mean GrayscaleObservation"),
        ({"wrappers": ["FrameStack"]}, "did you mean FrameStackObservation"),
        ({"wrappers": ["Autoreset"]}, "Jumar resets the environments itself"),
        ({"wrappers": ["NormalizeReward"]}, "use --normalize-rewards"),
        ({"wrappers": ["RecordVideo:video_folder=v"]}, "would write videos; jumar record RUN films"),
        ({"wrappers": ["HumanRendering"]}, "would open a window; jumar watch RUN shows"),
        ({"wrappers": ["RenderCollection"]}, "would stay in memory"),
        ({"wrappers": ["NumpyToTorch"]}, "Jumar takes NumPy arrays"),
        ({"wrappers": ["TransformReward"]}, "takes a function, which cannot be typed; .* module:Name"),
        (
            {"wrappers": ["ImgObsWrapper"]},
            "unknown wrapper of Gymnasium 'ImgObsWrapper'.* your own is named as module:Name",
        ),
        ({"wrappers": ["TimeLimit:3"]}, "'TimeLimit:3' is not NAME or NAME:key=value"),
        ({"wrappers": ["nowhere_at_all:Louder"]}, "the wrapper nowhere_at_all:Louder: there is no module 'nowhere_at"),
        ({"wrappers": ["faulty:Luoder"]}, "unknown wrapper of faulty 'Luoder'; did you mean Louder"),
        ({"wrappers": ["faulty:name"]}, "faulty:name is a str; it must be a class or function"),
        (
            {"wrappers": ["faulty:Louder:fcator=3"]},
            "unknown setting of the wrapper faulty:Louder 'fcator'; did you mean fac",
        ),
        (
            {"wrappers": ["faulty:broken_wrapper"]},
            "faulty:broken_wrapper returned a list; it must return a gymnasium.Env",
        ),
        ({"wrappers": ["gymnasium.wrappers:NormalizeReward"]}, "use --normalize-rewards"),
        ({"wrappers": ["TimeLimit:max_steps=3"]}, "unknown setting of the wrapper TimeLimit 'max_steps'"),
        (
            {"wrappers": ["RescaleAction:min_action=-1,max_action=1"]},
            r"cannot put the wrapper RescaleAction .*around the environment: \w+Error",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_host(resolve("gymnasium/CartPole-v1", **options), 1)


def test_a_wrapper_of_the_user_s_own_is_found_by_its_module() -> None:
    found = resolve("faulty:Walk-v0", wrappers=["TimeLimit:max_episode_steps=2", "faulty:Louder:factor=3"])
    assert found.own_wrappers == ["faulty:Louder"]
    plain, loud, elsewhere = (
        make_host(each, 2, workers) for each, workers in ((resolve("faulty:Walk-v0"), 0), (found, 0), (found, 2))
    )
    for environments in (plain, loud, elsewhere):
        environments.reset([1, 2])
    try:
        quiet, here, there = (environments.step([0, 0]).rewards for environments in (plain, loud, elsewhere))
    finally:
        elsewhere.close()
    np.testing.assert_array_equal(here, 3.0 * quiet)
    np.testing.assert_array_equal(there, here)


def test_a_wrapper_named_by_a_file_is_never_imported(write_module: Callable[[str, str], None]) -> None:
    write_module("canary", "raise SystemExit('imported')\n")
    for module, options in (
        (None, "--wrapper canary:Louder"),
        ("canary", "--env canary:Walk-v0 --wrapper canary:Louder"),
    ):
        data = resolve("faulty:Walk-v0").to_json() | {"module": module, "wrappers": [["canary:Louder", {"factor": 3}]]}
        found = EnvironmentId.from_json(json.loads(json.dumps(data)))
        with pytest.raises(
            UsageError, match=f"code of .* nothing named by a file is imported; repeat {options} to allow"
        ):
            make_host(found, 1)
        assert "canary" not in sys.modules


def test_a_refused_observation_names_the_wrapper_that_helps() -> None:
    with pytest.raises(UsageError, match=r"at 'seen' is Sequence.* leaves it out: --wrapper '(.*)'\.$") as refused:
        make_host(resolve("faulty:Growing-v0"), 1)
    wrapper = str(refused.value).split("'")[-2]
    assert wrapper == 'FilterObservation:filter_keys=["counter", "place"]'
    left = make_host(resolve("faulty:Growing-v0", wrappers=[wrapper]), 1).observation_space
    assert isinstance(left, spaces.Dict)
    assert set(left.spaces) == {"counter", "place"}


@pytest.mark.skipif(importlib.util.find_spec("Box2D") is not None, reason="Box2D is installed")
def test_without_box2d_it_is_said_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"needs Box2D, .*: pip install 'gymnasium\[box2d\]'; envpool/LunarLander-v3"):
        make_host(resolve("gymnasium/LunarLander-v3"), 1)


@needs_envpool
def test_what_envpool_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="use gymnasium/CartPole-v1"):
        resolve("envpool/CartPole-v1", frame_stack=2)
    with pytest.raises(UsageError, match="use gymnasium/CartPole-v1"):
        resolve("envpool/CartPole-v1", wrappers=["TimeLimit"])
    with pytest.raises(UsageError, match="unknown setting of envpool/CartPole-v1"):
        resolve("envpool/CartPole-v1", {"sutton_barto_reward": True})
    with pytest.raises(UsageError, match="threads of its own"):
        make_host(resolve("envpool/CartPole-v1"), 2, workers=2)


# --- making ---


def test_wrappers_come_first_and_the_frame_stack_last() -> None:
    found = resolve("gymnasium/CartPole-v1", frame_stack=3, wrappers=["TimeAwareObservation"])
    envs = make_host(found, 2)
    assert isinstance(envs, SerialEnvironments)
    observations, _ = envs.reset([1, 2])
    assert observations.shape == (2, 3, 5)
    assert np.array_equal(observations[0, 0], observations[0, 2])  # filled with the first one
    result = envs.step(np.array([0, 1]))
    assert np.array_equal(result.observations[:, 0], observations[:, 1])
    assert not np.array_equal(result.observations[0, 2], observations[0, 2])


def test_the_time_limit_of_an_id_is_kept() -> None:
    envs = make_host(resolve("faulty:LimitedWalk-v0"), 1)
    assert (envs.name, envs.episode_limit) == ("faulty:LimitedWalk-v0", 4)
    envs.reset([0])
    rows = [envs.step([0]) for _ in range(4)]
    assert rows[-1].terminated.tolist() == [True]  # it also terminates there, and that wins
    assert rows[-1].truncated.tolist() == [False]


def test_a_fault_is_named_as_it_was_typed() -> None:
    envs = make_host(resolve("faulty:Raises-v0", {"at": 1}), 2)
    envs.reset([0, 1])
    with pytest.raises(
        EnvironmentFault, match=r"^environment 0 of faulty:Raises-v0 raised at step 1: ValueError: boom"
    ):
        envs.step([0, 0])


def test_worker_processes_are_made_on_demand() -> None:
    envs = make_host(resolve("faulty:Walk-v0", {"ends": 2}), 3, workers=2)
    try:
        assert isinstance(envs, WorkerEnvironments)
        serial = make_host(resolve("faulty:Walk-v0", {"ends": 2}), 3)
        assert np.array_equal(envs.reset([1, 2, 3])[0], serial.reset([1, 2, 3])[0])
        for _ in range(3):
            assert np.array_equal(envs.step([-1, 0, 1]).observations, serial.step([-1, 0, 1]).observations)
    finally:
        envs.close()


def test_compiled_environments_are_made(write_module: Callable[[str, str], None]) -> None:
    own = make_compiled(resolve("jax/CartPole-v1"))
    assert own.action_space == spaces.Discrete(2)
    assert make_compiled(resolve("jax/CartPole-v1", frame_stack=3)).observation_space.shape == (3, 4)
    write_module("mine", "from jumar.envs.classic_control import ENVIRONMENTS\nMine = ENVIRONMENTS['Pendulum-v1']()\n")
    user = make_compiled(resolve("jax/mine:Mine"))
    assert user.observation_space.shape == (3,)
    with pytest.raises(UsageError, match="not stepped from Python"):
        make_host(resolve("jax/CartPole-v1"), 1)
    with pytest.raises(UsageError, match="not a compiled environment"):
        make_compiled(resolve("gymnasium/CartPole-v1"))
    with pytest.raises(UsageError, match="wrappers are Gymnasium's"):
        resolve("jax/CartPole-v1", wrappers=["TimeLimit"])


def test_the_list_gives_what_can_be_typed() -> None:
    found = dict(list_environments())
    assert {"jax/CartPole-v1", "gymnasium/CartPole-v1"} <= found.keys()
    assert found["gymnasium/CartPole-v1"] == "Gymnasium, at most 500 steps"
    if pool.installed():
        assert "envpool/HalfCheetah-v5" in found
    for text in list(found)[::97]:
        assert resolve(text).full_name == text
