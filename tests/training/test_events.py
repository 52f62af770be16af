"""Callbacks: what they see, what stops a run, and that a run which is resumed stops where the whole one does."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from probes import Metronome, Probe, one
from test_commands import back_to, copy_of, refused, spoken
from test_forged import changed, forge
from test_resume import digest, jumar, what_is_logged
from updates import flat

import jumar as jumar_library
from jumar.agents import agent as agents
from jumar.errors import UsageError
from jumar.runs import logs
from jumar.runs.files import read_json
from jumar.training.events import LogInfo, SaveEvery, StopAtReturn, StopWithoutGain

untyped: Any = jumar_library
SMALL: dict[str, Any] = {"n_envs": 2, "n_steps": 16, "batch_size": 16, "n_epochs": 1, "net_arch": (4,)}


def evaluation(mean: float, *cut: float) -> dict[str, Any]:
    return {"mean_return": mean, "cut_returns": list(cut)}


def test_stop_without_gain_counts_evaluations_that_are_not_better_than_the_best() -> None:
    rule = StopWithoutGain(2)
    means = [3.0, 5.0, 5.0, 6.0, 2.0, 6.0]
    assert [rule.evaluation(evaluation(mean)) for mean in means] == [True, True, True, True, True, False]
    assert rule.waiting == (6.0, True, 2)


def test_an_evaluation_of_cut_episodes_is_no_gain_over_one_of_whole_episodes() -> None:
    rule = StopWithoutGain(1)
    assert rule.evaluation(evaluation(-10.0))
    assert not rule.evaluation(evaluation(-1.0, -1.0))


@pytest.mark.parametrize(("mean", "goes_on"), [(474.9, True), (475.0, False), (500.0, False)])
def test_stop_at_return_is_reached_by_an_equal_one(mean: float, goes_on: bool) -> None:
    assert StopAtReturn(475).evaluation(evaluation(mean)) is goes_on


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StopAtReturn(math.nan), "stop_at_return=nan must be a finite number"),
        (lambda: StopAtReturn(untyped), "must be a finite number"),
        (lambda: StopWithoutGain(0), "stop_without_gain=0 is out of range: it must be at least 1"),
        (lambda: LogInfo(), "LogInfo needs the keys"),
        (lambda: LogInfo("a\nb"), "must be the name of an entry of info"),
        (lambda: SaveEvery(0, "x"), "n_steps=0 is out of range"),
        (lambda: SaveEvery(10, "x").iteration({}), r"SaveEvery\(10, 'x'\) saves the policy of the agent"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()


class Seen:
    """A callback that writes down what it is called for."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.stop_at = stop_at

    def iteration(self, metrics: dict[str, Any]) -> None:
        self.calls.append(("iteration", metrics["time/total_timesteps"]))

    def evaluation(self, record: dict[str, Any]) -> bool:
        self.calls.append(("evaluation", (record["step"], record["mean_return"], len(record["returns"]))))
        return record["step"] != self.stop_at

    def checkpoint(self, step: int) -> None:
        self.calls.append(("checkpoint", step))

    def end(self, reason: str) -> None:
        self.calls.append(("end", reason))


@pytest.fixture(scope="module")
def agent() -> jumar_library.PPO:
    """Return an agent whose episodes return 3; tests go on where others stopped."""
    return jumar_library.PPO(Probe(one, length=3), **SMALL)


def test_an_object_is_called_for_what_it_has_a_method_for(agent: jumar_library.PPO, tmp_path: Path) -> None:
    before, seen, only = agent.num_timesteps, Seen(), []
    agent.learn(64, [seen, only.append], run_dir=tmp_path / "run", eval_every=64, eval_episodes=2)
    first, last = before + 32, before + 64
    assert seen.calls == [
        ("iteration", first),
        ("evaluation", (last, 3.0, 2)),
        ("iteration", last),
        ("checkpoint", last),
        ("end", "complete"),
    ]
    assert len(only) == 2


def test_an_object_stops_training_after_an_evaluation(agent: jumar_library.PPO) -> None:
    before = agent.num_timesteps
    seen = Seen(stop_at=before + 32)
    agent.learn(96, seen, eval_every=32, eval_episodes=1)
    assert agent.num_timesteps == before + 32
    assert seen.calls[-1][0] == "end"
    assert seen.calls[-1][1].startswith("stopped by the callback <test_events.Seen")


def test_ready_callbacks_stop_training(agent: jumar_library.PPO) -> None:
    before = agent.num_timesteps
    agent.learn(320, StopAtReturn(3.0), eval_every=64, eval_episodes=1)
    assert agent.num_timesteps == (before // 64 + 1) * 64
    for _ in range(2):  # each call counts from its own beginning
        before = agent.num_timesteps
        agent.learn(320, [StopWithoutGain(2), StopAtReturn(3.5)], eval_every=32, eval_episodes=1)
        assert agent.num_timesteps == before + 96


def test_seeds_stop_together_when_their_mean_reaches_the_threshold() -> None:
    seen = Seen()
    several = jumar_library.PPO(Probe(one, length=3), n_seeds=2, **SMALL)
    several.learn(320, [StopAtReturn(3.0), seen], eval_every=32, eval_episodes=2)
    assert several.num_timesteps == 32
    assert seen.calls[0] == ("evaluation", (32, 3.0, 4))


class Raises:
    def __init__(self, where: str) -> None:
        self.where = where

    def iteration(self, metrics: dict[str, Any]) -> None:
        self._raise("iteration")

    def evaluation(self, record: dict[str, Any]) -> None:
        self._raise("evaluation")

    def end(self, reason: str) -> None:
        self._raise("end")

    def _raise(self, here: str) -> None:
        if here == self.where:
            raise ZeroDivisionError("boom")

    def __repr__(self) -> str:
        return f"Raises({self.where})"


@pytest.mark.parametrize("where", ["iteration", "evaluation", "end"])
def test_one_that_raises_is_named_and_loses_nothing(where: str, agent: jumar_library.PPO, tmp_path: Path) -> None:
    before = agent.num_timesteps
    with pytest.raises(ZeroDivisionError) as raised:
        agent.learn(32, Raises(where), run_dir=tmp_path / "run", eval_every=32, eval_episodes=1)
    assert raised.value.__notes__ == [f"Raised by the callback Raises({where}), called for: {where}."]
    assert agent.num_timesteps == before + 32
    kept = jumar_library.load(tmp_path / "run", env=Probe(one, length=3))
    np.testing.assert_array_equal(flat(kept._training.learner), flat(agent._training.learner))
    assert (
        len(logs.read(tmp_path / "run" / "metrics.jsonl"))
        == len(logs.read(tmp_path / "run" / "evaluations.jsonl"))
        == 1
    )


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (Seen, "callback=Seen is a class; make one"),
        ([StopAtReturn(1), StopAtReturn(2)], r"both StopAtReturn\(1\) and StopAtReturn\(2\)"),
        (StopAtReturn(1), "stop_at_return=1 needs evaluations, and eval_every=0"),
        (StopWithoutGain(3), "stop_without_gain=3 needs evaluations"),
        (3, "callback=3 is not a function and has none of the methods"),
    ],
)
def test_callbacks_that_cannot_work_are_refused_before_training(
    callback: Any, said: str, agent: jumar_library.PPO
) -> None:
    before = agent.num_timesteps
    with pytest.raises(UsageError, match=said):
        agent.learn(32, callback)
    assert agent.num_timesteps == before


def test_policies_are_saved_every_so_many_steps(agent: jumar_library.PPO, tmp_path: Path) -> None:
    before = agent.num_timesteps
    agent.learn(160, SaveEvery(64, tmp_path / "policies"))
    due = [step for step in range(before + 32, before + 161, 32) if step // 64 > (step - 32) // 64]
    assert [int(path.name) for path in sorted((tmp_path / "policies").iterdir())] == due
    last = jumar_library.load_policy(tmp_path / "policies" / f"{due[-1]:012d}")
    if due[-1] == agent.num_timesteps:
        np.testing.assert_array_equal(flat(last.parameters), flat(agent.actor().parameters))


# Runs that stop, and are resumed ------------------------------------------------------------------------------------

STOPPING = ["--total-timesteps", "2048", "--checkpoint-every", "128", "--eval-every", "256", "--eval-episodes", "2"]
STILL = ["--n-envs", "2", "--n-steps", "64", "--net-arch", "4", "--n-epochs", "1", "--batch-size", "64"]
STILL += ["--preset", "none", "--learning-rate", "1e-12", "--stop-without-gain", "2"]
"""A policy that does not change has no gain after its first evaluation: at 256, 512 and 768 steps."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function from an environment to the directory of a run that was stopped, which nobody may change."""
    folder = tmp_path_factory.mktemp("stopped")

    def train(env: str) -> Path:
        run = folder / env.replace("/", "_")
        if not run.exists():
            summary = jumar("train", "ppo", env, *STOPPING, *STILL, "--run-dir", run)
            assert (summary["stopped_by"], summary["total_timesteps"]) == ("stop_without_gain", 768)
        return run

    return train


@pytest.mark.parametrize("env", ["jax/CartPole-v1", pytest.param("gymnasium/CartPole-v1", marks=pytest.mark.slow)])
def test_a_run_that_was_killed_between_evaluations_stops_where_the_whole_one_does(
    env: str, stopped: Any, tmp_path: Path
) -> None:
    run = copy_of(stopped(env), tmp_path / "killed")
    back_to(run, 640)
    record = read_json(run / "checkpoints" / "000000000640" / "checkpoint.json", "checkpoint")["record"]
    assert (record["waiting"]["evaluations"], record["stopped_by"]) == (1, None)
    summary = jumar("resume", run)
    assert (summary["stopped_by"], summary["total_timesteps"]) == ("stop_without_gain", 768)
    assert digest(run) == digest(stopped(env))
    assert what_is_logged(run) == what_is_logged(stopped(env))


def test_a_last_evaluation_without_gain_counts_where_a_larger_total_is_given(tmp_path: Path) -> None:
    """The run waits for two evaluations when it reaches its total; the next one stops it, and its checkpoint is sound."""
    run = tmp_path / "run"
    short = [word if word != "2048" else "768" for word in STOPPING]
    summary = jumar("train", "ppo", "jax/CartPole-v1", *short, *STILL, "--run-dir", run)
    assert (summary["stopped_by"], summary["total_timesteps"]) == (None, 768)
    summary = jumar("resume", run, "--total-timesteps", "1280")
    assert (summary["stopped_by"], summary["total_timesteps"]) == ("stop_without_gain", 1024)
    assert jumar("resume", run)["stopped_by"] == "stop_without_gain"


def test_a_stopped_run_is_finished_and_says_why(stopped: Any, tmp_path: Path) -> None:
    run = copy_of(stopped("jax/CartPole-v1"), tmp_path / "run")
    code, said = spoken("resume", run)
    assert code == 0
    assert (
        "is finished: it has trained for 768 steps and was stopped by stop_without_gain=2; to go on all the same, give"
        in said
    )
    assert jumar("resume", run)["stopped_by"] == "stop_without_gain"
    assert digest(run) == digest(stopped("jax/CartPole-v1"))


def test_a_new_total_goes_on_without_the_rule_that_stopped_it(stopped: Any, tmp_path: Path) -> None:
    run = copy_of(stopped("jax/CartPole-v1"), tmp_path / "run")
    code, said = spoken("resume", run, "--total-timesteps", "2048")
    assert code == 0
    assert (
        "stop_without_gain=2 stopped the run after 768 steps; as a total is given, training goes on without it" in said
    )
    assert read_json(run / "config.json", "run configuration")["stop_without_gain"] is None
    assert logs.read(run / "evaluations.jsonl")[-1]["step"] == 2048
    summary = jumar("resume", run)
    assert (summary["stopped_by"], summary["total_timesteps"]) == (None, 2048)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stop-at-return", "nan"], "'nan' is not a finite number such as 475"),
        (["--stop-at-return", "475", "--eval-every", "0"], "stop_at_return=475 needs evaluations, and eval_every=0"),
        (["--stop-without-gain", "0"], "0 is out of range: it must be at least 1"),
        (["--stop-without-gain", "3", "--eval-every", "0"], "stop_without_gain=3 needs evaluations, and eval_every=0"),
        (["--log-info", ""], "log_info='' must be the name of an entry of info"),
    ],
)
def test_options_that_cannot_work_are_refused_before_training(words: list[str], said: str, tmp_path: Path) -> None:
    code, error = refused("train", "ppo", "jax/CartPole-v1", *words, "--run-dir", tmp_path / "run")
    assert code == 2
    assert said in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "place", "value", "said"),
    [
        ("config.json", ("stop_at_return",), "high", "the entry stop_at_return is 'high', but must be a number"),
        ("config.json", ("stop_at_return",), math.inf, "stop_at_return"),
        ("config.json", ("stop_without_gain",), 0, "the entry stop_without_gain is 0, but must be a whole number"),
        ("config.json", ("eval_every",), 0, "stop_without_gain contradicts another one: stop_without_gain=2 needs"),
        ("config.json", ("log_info",), [3], "the entry log_info.0 is 3, but must be a short text"),
        (
            "checkpoint",
            ("record", "stopped_by"),
            "me",
            "the entry record.stopped_by is 'me', but must be one of stop_at",
        ),
        (
            "checkpoint",
            ("record", "waiting", "evaluations"),
            -1,
            "evaluations is -1, but must be a whole number from 0 to",
        ),
        (
            "checkpoint",
            ("record", "waiting", "best"),
            "x",
            "the entry record.waiting.best is 'x', but must be a number",
        ),
        ("checkpoint", ("record", "waiting"), {}, "the entry record.waiting.best is missing"),
    ],
)
def test_forged_values_are_refused(
    name: str, place: tuple[str, ...], value: Any, said: str, stopped: Any, tmp_path: Path
) -> None:
    run = copy_of(stopped("jax/CartPole-v1"), tmp_path / "run")
    path, what = run / name, "run configuration"
    if name == "checkpoint":
        for folder in sorted((run / "checkpoints").iterdir())[:-1]:
            shutil.rmtree(folder)
        path, what = next((run / "checkpoints").iterdir()) / "checkpoint.json", "checkpoint"
    forge(path, what, changed(read_json(path, what), place, value))
    code, error = refused("resume", run)
    assert code == 1
    assert said in error


# Entries of info ----------------------------------------------------------------------------------------------------


class Telling(Metronome):
    """A metronome whose info has the reward, its half in every second step, and a text."""

    action_space: Any = spaces.Discrete(2)

    def __init__(self, words: bool = False) -> None:
        super().__init__()
        self.words = words

    def step(self, action: Any) -> Any:
        *rest, _ = super().step(action)
        reward = rest[1]
        info = {"reward": reward} | ({"half": reward / 2} if reward % 2 == 0 else {})
        return *rest, info | ({"words": "left"} if self.words else {})


def logged(env: Any, *keys: str, steps: int = 32, **settings: Any) -> tuple[list[dict[str, Any]], jumar_library.PPO]:
    """Return the metrics of training in an environment, and the agent."""
    found: list[dict[str, Any]] = []
    agent = jumar_library.PPO(env, **{**SMALL, **settings})
    agent.learn(steps, [found.append, *([LogInfo(*keys)] if keys else [])])
    agent.close()
    return found, agent


# Rewards count up from 1: with 16 steps their mean is 8.5, and that of the halves of 2, 4, ..., 16 is 4.5.
FIRST = {"info/reward": 8.5, "info/half": 4.5, "info/none": None}


def entries(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in metrics.items() if name.startswith("info/")}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_entries_of_info_are_means_over_the_steps_that_have_them(workers: int) -> None:
    found, _ = logged(Telling, "reward", "half", "none", workers=workers, steps=64)
    assert entries(found[0]) == FIRST
    assert entries(found[1]) == {"info/reward": 24.5, "info/half": 12.5, "info/none": None}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_entries_of_a_vector_environment_leave_out_steps_that_only_reset(mode: AutoresetMode) -> None:
    found, _ = logged(SyncVectorEnv([Telling, Telling], autoreset_mode=mode), "reward")
    # Of 16 steps in NEXT_STEP mode those after the ends at 3, 9 and 13 only reset, and no reward counts up in them.
    last = 16 if mode is AutoresetMode.SAME_STEP else 13
    assert found[0]["info/reward"] == pytest.approx((last + 1) / 2)


def test_logging_changes_nothing_else_in_host_environments() -> None:
    (plain, *_), without = logged(Telling)
    (with_entries, *_), agent = logged(Telling, "reward")
    np.testing.assert_array_equal(flat(without._training.learner), flat(agent._training.learner))
    same = [name for name in plain if not name.startswith("time/")]
    assert with_entries.keys() == {*plain, "info/reward"}
    assert {name: with_entries[name] for name in same} == {name: plain[name] for name in same}


def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with what is warned of in ``learn``."""
    said: list[str] = []

    class Ear(agents._Heard):
        def warn(self, text: str) -> None:
            said.append(text)

    monkeypatch.setattr(agents, "_Heard", Ear)
    return said


def test_what_is_off_in_learn_becomes_a_warning_of_python_s_at_its_end() -> None:
    with pytest.warns(UserWarning, match="so info/none is empty") as heard:
        logged(lambda: Telling(words=True), "words", "none", steps=64)
    assert len(heard) == 2
    assert {warning.filename for warning in heard} == {__file__}, "the line that called learn"


def test_an_entry_that_is_missing_or_no_number_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = warned(monkeypatch)
    found, _ = logged(lambda: Telling(words=True), "words", "none", steps=64)
    assert entries(found[1]) == {"info/words": None, "info/none": None}
    assert " gave an info['words'] at step 1 that is left, not a finite number. Such steps do not count in" in said[0]
    assert "has had info['none'] so far, so info/none is empty; the numbers there are: reward, half." in said[1]
    assert len(said) == 2


def told(observation: Any, action: Any, time: Any) -> dict[str, Any]:
    odd = time == 1
    return {
        "time": time,
        "broken": jnp.where(odd, jnp.nan, 2.0),
        "many": jnp.zeros((3,)),
        "constant": 4.0,
        "words": "left",
        "parts": {"time": time},
    }


@pytest.mark.parametrize("n_seeds", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_entries_of_a_compiled_environment(
    n_seeds: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, found = warned(monkeypatch), []
    env = Probe(one, length=4, info=told)
    agent = jumar_library.PPO(env, n_seeds=n_seeds, **SMALL)
    agent.learn(64, [found.append, LogInfo("time", "broken", "many", "constant", "words", "parts")])
    # Times are 0, 1, 2, 3 in turn.
    expected = {"info/time": 1.5, "info/broken": 2.0, "info/many": None, "info/constant": 4.0}
    expected |= {"info/words": None, "info/parts": None}
    assert [entries(metrics) for metrics in found] == [expected, expected]
    assert "info['many'] is not one number but an array of shape (3,)" in " ".join(said)
    assert all(f"info['{key}'] is not one number but text or a" in " ".join(said) for key in ("words", "parts"))
    assert not any("no step of" in words for words in said)
    assert f"info['broken'] of Probe was NaN or infinite in {8 * (n_seeds or 1)} steps" in " ".join(said)
    agent.save(tmp_path / "saved")  # what is logged is no part of the state
    np.testing.assert_array_equal(
        flat(jumar_library.load(tmp_path / "saved", env=env)._training.learner), flat(agent._training.learner)
    )


@pytest.mark.parametrize("n_steps", [3, 16])
def test_entries_of_a_pool_stepped_from_python_and_in_a_program(n_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("envpool")
    said, keys = warned(monkeypatch), ("elapsed_step", "elapsed_stop")
    found, agent = logged("envpool/Pendulum-v1", *keys, n_steps=n_steps, steps=2 * n_steps, batch_size=2)
    assert agent._training.plan.log_info == keys
    # An episode has 200 steps, the first of which is number 1.
    assert found[0]["info/elapsed_step"] == pytest.approx((n_steps + 1) / 2)
    assert "no step of envpool/Pendulum-v1 has had info['elapsed_stop'] so far" in said[-1]
    assert "the numbers there are: env_id" in said[-1]


def test_an_entry_of_the_command_line_is_in_the_logs_of_a_resumed_run(tmp_path: Path) -> None:
    words = [
        "ppo",
        "gymnasium/FrozenLake-v1",
        "--total-timesteps",
        "128",
        "--n-envs",
        "2",
        "--n-steps",
        "32",
        "--net-arch",
        "4",
    ]
    run = tmp_path / "run"
    jumar("train", *words, "--workers", "0", "--eval-every", "0", "--log-info", "prob", "--run-dir", run)
    jumar("resume", run, "--total-timesteps", "192")
    assert [entry["info/prob"] for entry in logs.read(run / "metrics.jsonl")] == pytest.approx([1 / 3] * 3)
