"""``jumar record`` and ``jumar watch``: the episodes of ``jumar evaluate``, seen; and what goes wrong, said."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest
from PIL import Image
from probes import Probe, one, show_time

import jumar
from jumar.cli import main
from jumar.collecting.evaluation import Seen
from jumar.envs.gymnasium_factory import GymnasiumFactory
from jumar.envs.registry import EnvironmentId
from jumar.envs.sources import FromId
from jumar.errors import UsageError
from jumar.training.plan import Plan
from jumar.training.restore import checkpoint_policies, read_policy
from jumar.training.warm_start import run_of
from jumar.video import cameras, encoders, opengl, watch
from jumar.video.record import Shots, record
from jumar.video.stage import DrawnFactory, Stage, as_picture

HERE = str(Path(__file__).parent)


def quietly(words: str) -> None:
    """Take a sentence."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an agent that has learnt nothing yet."""
    path = tmp_path_factory.mktemp("saved") / "agent"
    agent = jumar.PPO("jax/CartPole-v1", n_steps=8, n_envs=2, batch_size=16, net_arch=(4,), seed=3)
    agent.save(path)
    return path


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of it, with a best policy."""
    path = Path(shutil.copytree(saved, tmp_path / "run"))
    (path / "best").mkdir()
    for name in ("policy.json", "policy.safetensors"):
        shutil.copy(path / name, path / "best" / name)
    return path


@pytest.fixture(scope="module")
def lamp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an agent in an environment of Gymnasium's that is the user's own."""
    sys.path.append(HERE)
    try:
        path = tmp_path_factory.mktemp("lamp") / "agent"
        agent = jumar.PPO("pictured:Lamp-v0", n_steps=8, n_envs=2, batch_size=16, net_arch=(4,), seed=1)
        agent.save(path)
        agent.close()
    finally:
        sys.path.remove(HERE)
    return path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_film_shows_the_episodes_of_an_evaluation(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--seed", "5"], ["--seed", "5", "--stochastic"]):
        _, evaluated = answer(capsys, "evaluate", str(run), "--episodes", "2", *options)
        code, filmed = answer(
            capsys,
            "record",
            str(run),
            "--episodes",
            "2",
            "--out",
            f"{run}{len(options)}.gif",
            "--size",
            "96x64",
            *options,
        )
        assert code == 0
        assert filmed["returns"] == evaluated["returns"]
        assert (filmed["episodes"], filmed["fps"]) == (2, 50)
        # A picture of the reset and of each step; the last one of an episode stays for 0.7 s.
        assert filmed["frames"] == sum(filmed["lengths"]) + 2 * 35
        assert filmed["returns"] == filmed["lengths"]
    with Image.open(f"{run}2.gif") as image:
        assert image.size == (96, 64 + 30)


def test_every_checkpoint_is_filmed_in_the_order_of_steps(run: Path) -> None:
    """The best policy is of the checkpoint's step, and is it."""
    made = record(
        Shots(run=run, every_checkpoint=True, out=run / "a.gif", size=(64, 48), caption=False), quietly, quietly
    )
    assert made["steps"] == [0]
    said: list[str] = []
    description = run / "best" / "policy.json"
    from jumar.runs.policy_files import read_policy_files, write_policy_files

    arrays, words = read_policy_files(run / "best")
    write_policy_files(run / "best", arrays, {**words, "step": 7})
    assert description.exists()
    made = record(
        Shots(run=run, every_checkpoint=True, episodes=2, out=run / "b.gif", size=(64, 48)), said.append, said.append
    )
    assert made["steps"] == [0, 0, 7, 7]
    assert made["returns"][:2] == made["returns"][2:], "the same policy, the same seeds"
    assert [line.partition(":")[0] for line in said][::2] == [
        "jax/CartPole-v1   checkpoint, 0 steps of training",
        "jax/CartPole-v1   best, 7 steps of training",
    ]


def test_of_several_seeds_each_has_its_own_checkpoints(tmp_path: Path) -> None:
    """The policy of a seed in the checkpoint of all is the one in that seed's folder."""
    path = tmp_path / "many"
    jumar.PPO("jax/CartPole-v1", n_steps=8, n_envs=2, batch_size=16, net_arch=(4,), n_seeds=2).save(path)
    with pytest.raises(UsageError, match=r"many holds several seeds; record one of them, such as .*seed_0"):
        record(Shots(run=path, out=tmp_path / "a.gif"), quietly, quietly)
    for seed in (0, 1):
        folder = path / f"seed_{seed}"
        keeper, lane = run_of(folder)
        assert keeper is not None
        plan = Plan.from_json(keeper.read_config(), keeper.config)
        [kept] = checkpoint_policies(keeper, plan, lane, quietly)
        _, parameters, moments, _ = read_policy(folder)
        for there, here in zip(
            jax.tree.leaves((kept.parameters, kept.moments)), jax.tree.leaves((parameters, moments)), strict=True
        ):
            np.testing.assert_array_equal(there, here)


def test_films_go_into_the_run_and_never_over_each_other(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jumar.video.record.find_ffmpeg", lambda: "ffmpeg")
    monkeypatch.setattr(encoders, "find_ffmpeg", lambda: "")  # a GIF under any name
    names = [
        answer(capsys, "record", str(run), "--size", "64x48", *words)[1]["files"] for words in ([], [], ["--best"])
    ]
    folder = run / "videos"
    assert names == [[str(folder / f"{name}.mp4")] for name in ("final_seed0", "final_seed0-2", "best_seed0")]
    assert sorted(path.name for path in folder.iterdir()) == ["best_seed0.mp4", "final_seed0-2.mp4", "final_seed0.mp4"]
    shutil.rmtree(folder)
    folder.symlink_to(run)
    assert "links inside of a run directory are not followed" in answer(capsys, "record", str(run))[1]["error"]


def test_mistakes_are_sentences(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "taken.gif").touch()
    empty = tmp_path / "empty"
    shutil.copytree(run, empty)
    for name in ("policy.json", "best/policy.json"):
        (empty / name).unlink()
    for words, said in (
        (["--episodes", "0"], "--episodes: 0 is out of range: it must be at least 1."),
        (["--fps", "0"], "--fps: '0' is not a positive number such as 30."),
        (["--fps", "1000"], "fps=1000 is out of range: it must be at least 0.1 and at most 240."),
        (["--size", "640"], "--size: '640' is not a width and a height in pixels such as 640x480."),
        (["--size", "9x9"], "size=9x9 is out of range: width and height must be at least 32 and at most 4096."),
        (["--out", ""], "--out is empty; give the path of a new file that ends in .mp4 or .gif."),
        (["--out", "film.avi"], "--out film.avi does not end in .mp4 or .gif, the two kinds of films there are."),
        (["--out", str(tmp_path / "taken.gif")], "exists already, and is not overwritten"),
        (["--best", "--every-checkpoint"], "--every-checkpoint films the best policy, too; leave --best out."),
        (["--codec", "x"], "unknown option '--codec'"),
    ):
        code, found = answer(capsys, "record", str(run), *words)
        assert code == 2
        assert said in found["error"]
    for command in ("record", "watch"):
        code, found = answer(capsys, command, str(empty), *(["--out", "a.gif"] if command == "record" else []))
        assert (code, found["error"]) == (2, f"{empty} has no final policy: go on with jumar resume {empty}.")
        code, found = answer(capsys, command, str(tmp_path / "none"))
        assert (code, found["error"][:21]) == (2, f"there is no run at {tmp_path}"[:21])


def test_a_signal_leaves_no_film(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(self: Any, frame: np.ndarray) -> None:
        self.frames += 1
        if self.frames == 4:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(encoders.Film, "add", interrupt)
    code, found = answer(capsys, "record", str(run), "--out", str(run / "a.gif"))
    assert (code, found["error"]) == (130, "stopped; no film was written.")
    assert not (run / "a.gif").exists()


# --- environments that draw themselves -----------------------------------------------------------------------------


def test_an_environment_of_gymnasium_draws_itself_in_a_process_of_its_own(
    lamp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each picture is as bright as its step says, the last one of an episode too."""
    monkeypatch.syspath_prepend(HERE)
    own = ("--env", "pictured:Lamp-v0")
    assert "repeat --env pictured:Lamp-v0" in answer(capsys, "record", str(lamp), "--out", "a.gif")[1]["error"]
    _, evaluated = answer(capsys, "evaluate", str(lamp), "--episodes", "2", *own)
    out = tmp_path / "a.gif"
    code, filmed = answer(capsys, "record", str(lamp), "--episodes", "2", "--out", str(out), "--no-caption", *own)
    assert code == 0
    assert filmed["returns"] == evaluated["returns"]
    assert (filmed["lengths"], filmed["fps"]) == ([6, 6], 12.0)
    with Image.open(out) as image:
        shown = []
        for i in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(i)
            shown.append(np.asarray(image.convert("RGB"))[0, 0, 0])
        assert image.size == (384, 384)
    episode = [*range(50, 56), *[56] * 8]
    assert shown == episode * 2


def drawn(env: str, tmp_path: Path, **kwargs: Any) -> gym.Env[Any, Any]:
    from pictured import Lamp

    assert Lamp.metadata
    modes = kwargs.pop("modes", ("rgb_array", "ansi"))
    return DrawnFactory(GymnasiumFactory(env, kwargs), modes, tmp_path / "picture", env)()


@pytest.mark.parametrize(
    ("env", "kwargs", "said"),
    [
        ("Blind-v0", {}, "Blind-v0 cannot be drawn: it states no render mode"),
        (
            "Letters-v0",
            {"modes": ("rgb_array",)},
            "its render modes are ansi. An environment that draws itself has 'rgb_array'",
        ),
        ("Lamp-v0", {"fault": "raise"}, r"its renderer raised RuntimeError: no light \(pictured.py:\d+\)"),
        ("Lamp-v0", {"fault": "list"}, "returned a list; it must return an array"),
        ("Lamp-v0", {"fault": "float"}, "returned an array of float64; it must be uint8"),
        ("Lamp-v0", {"fault": "package"}, r"is drawn by pygame, which is not installed: pip install 'jumar\[video\]'"),
    ],
)
def test_why_an_environment_cannot_be_drawn(
    env: str, kwargs: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(HERE)
    with pytest.raises(UsageError, match=said):
        drawn(env, tmp_path, **kwargs)


def test_a_renderer_that_writes_leaves_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    env = drawn("Letters-v0", tmp_path)
    stage = Stage(tmp_path / "picture")
    env.reset(seed=1)
    env.step(0)
    assert stage.take() == "step \x1b[41m1\x1b[0m\x1b]0;title\x07\n"
    assert stage.rate == 4.0
    env.reset()  # the reset after an episode's end: its last picture stays
    assert "1" in str(stage.take())
    assert not stage.closed
    stage.close_window()
    assert Stage(tmp_path / "picture").closed


def test_pictures_pass_through_the_stage_unchanged(tmp_path: Path) -> None:
    here, there = Stage(tmp_path / "p"), Stage(tmp_path / "p")
    assert there.take() is None
    assert there.rate is None
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    here.put(as_picture(picture, "rgb_array", "x"))
    found = there.take()
    np.testing.assert_array_equal(found, picture[..., :3])
    with pytest.raises(UsageError, match="is too large"):
        here.put(np.zeros((1, 1), np.uint8).repeat(5000, 0).repeat(5000, 1)[..., None].repeat(3, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "said"), [("crash", "killed by SIGSEGV"), ("hang", "within 3 s and was stopped")])
def test_a_renderer_that_crashes_or_hangs_is_a_sentence(
    fault: str,
    said: str,
    lamp: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr(cameras, "PATIENCE", 3.0)
    path = tmp_path / "run"
    agent = jumar.PPO(
        "pictured:Lamp-v0", n_steps=8, n_envs=2, batch_size=16, net_arch=(4,), env_kwargs={"fault": fault}
    )
    agent.save(path)
    agent.close()
    code, found = answer(capsys, "record", str(path), "--env", "pictured:Lamp-v0", "--out", str(tmp_path / "a.gif"))
    assert code == 1
    assert said in found["error"]
    assert found["error"].endswith("no film was written.")
    assert not (tmp_path / "a.gif").exists()


@pytest.mark.slow
@pytest.mark.parametrize("env", ["gymnasium/CartPole-v1", "gymnasium/FrozenLake-v1"])
def test_gymnasiums_own_are_drawn_by_pygame(env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pygame")
    agent = jumar.PPO(env, n_steps=8, n_envs=2, batch_size=16, net_arch=(4,))
    agent.save(tmp_path / "run")
    agent.close()
    _, evaluated = answer(capsys, "evaluate", str(tmp_path / "run"), "--episodes", "2")
    code, filmed = answer(capsys, "record", str(tmp_path / "run"), "--episodes", "2", "--out", str(tmp_path / "a.gif"))
    assert code == 0
    assert filmed["returns"] == evaluated["returns"]


class Bright(Probe):
    """A compiled environment of the user's with a picture: the brightness is the time."""

    render_fps = 7

    def render(self, observation: np.ndarray) -> np.ndarray:
        assert isinstance(observation, np.ndarray)
        return np.full((8, 8, 3), 100 + int(observation[0]), np.uint8)


def test_a_compiled_environment_of_the_users_may_draw_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def camera(env: Any) -> cameras.DrawnCamera:
        source = FromId(EnvironmentId("jax/own:Bright", "jax", "Bright", "own", typed=True))
        monkeypatch.setattr(type(source), "make_compiled", lambda self: env)
        return cameras.DrawnCamera(source, (env.observation_space, env.action_space), None)

    bright = camera(Bright(one, show_time))
    assert bright.rate == 7.0
    picture = bright.picture(Seen(0, 3, 1.0, np.array([3.0], np.float32), False))
    np.testing.assert_array_equal(picture, np.full((8, 8, 3), 103, np.uint8))
    with pytest.raises(UsageError, match=r"give it a method render\(observation\) that returns a uint8 array"):
        camera(Probe(one, show_time))
    monkeypatch.setattr(Bright, "render", lambda self, observation: np.zeros(3))
    with pytest.raises(UsageError, match="returned an array of shape"):
        camera(Bright(one, show_time)).picture(Seen(0, 0, 0.0, np.zeros(1), False))


# --- drivers and displays ------------------------------------------------------------------------------------------


def test_the_first_driver_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def attempt(driver: str, environment: Any) -> str | None:
        tried.append(driver)
        return None if driver == works else f"no {driver}"

    monkeypatch.setattr(opengl, "try_driver", attempt)
    monkeypatch.setattr(opengl.importlib.util, "find_spec", lambda name: True)
    works = "osmesa"
    assert opengl.choose_driver("X", {}) == "osmesa"
    assert tried == ["egl", "osmesa"]
    works = "glfw"
    assert opengl.choose_driver("X", {"DISPLAY": ":0"}) == "glfw"
    with pytest.raises(
        UsageError, match=r"\(egl: no egl; osmesa: no osmesa\)\. Install .* apt install libegl1 .*xvfb-run"
    ):
        opengl.choose_driver("X", {})
    with pytest.raises(UsageError, match=r"MUJOCO_GL=egl does not work here \(no egl\)\. Unset it"):
        opengl.choose_driver("X", {"MUJOCO_GL": "egl"})
    monkeypatch.setattr(opengl.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"X needs MuJoCo.*jumar\[mujoco\]"):
        opengl.choose_driver("X", {})


def test_without_a_display_watching_names_the_film(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code, found = answer(capsys, "watch", str(run))
    assert code == 2
    assert found["error"].startswith("there is no display to show jax/CartPole-v1 on")
    assert "jumar record" in found["error"]
    monkeypatch.setenv("DISPLAY", ":987")
    pytest.importorskip("tkinter")
    code, found = answer(capsys, "watch", str(run))
    assert code == 2
    assert "no window can be opened" in found["error"]


def test_a_closed_window_ends_watching(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[np.ndarray] = []

    class Pane:
        closed = False

        def __init__(self, title: str) -> None:
            assert title.startswith("jumar watch ")

        def show(self, frame: np.ndarray) -> None:
            shown.append(frame)
            self.closed = len(shown) == limit

        def wait(self, until: float) -> None:
            """Wait for nobody."""

        def close(self) -> None:
            shown.append(np.zeros(0))

    monkeypatch.setattr(watch, "Window", Pane)
    monkeypatch.setattr(watch, "has_display", lambda: True)
    limit = 4
    code, found = answer(capsys, "watch", str(run))
    assert (code, found["returns"], len(shown)) == (0, [], 5)
    assert shown[0].shape == (444, 600, 3)
    limit = 0
    _, evaluated = answer(capsys, "evaluate", str(run), "--episodes", "2", "--seed", "8")
    _, found = answer(capsys, "watch", str(run), "--episodes", "2", "--seed", "8")
    assert found["returns"] == evaluated["returns"]
