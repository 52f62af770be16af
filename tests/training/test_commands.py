"""The jobs behind the commands where something is odd: early deaths, odd totals, newer files, a directory removed."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes import Probe, one
from test_resume import CASES, RUN, SMALL, digest, jumar, what_is_logged

import jumar as jumar_library
from jumar.cli import main
from jumar.collecting import evaluation
from jumar.console.reporter import Silent
from jumar.console.signals import StopFlag
from jumar.envs.registry import resolve
from jumar.envs.sources import FromId
from jumar.errors import DamagedFile, UsageError
from jumar.runs import files, logs
from jumar.runs.checkpoints import DESCRIPTION, CheckpointStore
from jumar.runs.files import encode_json, read_json
from jumar.runs.policy_files import read_policy_files
from jumar.training import commands, keeper
from jumar.training.keeper import Files
from jumar.training.training import Training

COMPILED = ["train", *CASES["compiled"], *RUN]
ENVIRONMENTS = Path(__file__).parents[1] / "envs"
HOST = ["train", *CASES["host"], *RUN]


def refused(*words: str | Path) -> tuple[int, str]:
    """Run the command; return its exit code and the error that ``--json`` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        code = main([*map(str, words), "--json"])
    return code, json.loads(output.getvalue().splitlines()[-1])["error"]


def spoken(*words: str | Path) -> tuple[int, str]:
    """Run the command; return its exit code and what it says on standard error."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        return main([*map(str, words)]), " ".join(errors.getvalue().split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Path]:
    """Return a function from a command to the directory of its finished run, which nobody may change."""
    folder = tmp_path_factory.mktemp("finished")

    def train(command: list[str]) -> Path:
        run = folder / next(word for word in command if "/" in word).replace("/", "_")
        if not run.exists():
            jumar(*command, "--run-dir", run)
        return run

    return train


def copy_of(run: Path, place: Path) -> Path:
    shutil.copytree(run, place)
    return place


def back_to(run: Path, step: int) -> None:
    """Make it look as if the run had been killed with the checkpoint of ``step`` as its newest."""
    store = CheckpointStore(run / "checkpoints")
    assert step in store.steps()
    store.discard_after(step)


@pytest.mark.parametrize("command", [COMPILED, pytest.param(HOST, marks=pytest.mark.slow)], ids=["compiled", "host"])
def test_a_run_killed_before_its_first_checkpoint_begins_at_step_0(
    command: list[str], finished: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished(command) / "config.json", run)
    (run / "metrics.jsonl").touch()
    jumar("resume", run)
    assert digest(run) == digest(finished(command))
    assert what_is_logged(run) == what_is_logged(finished(command))


@pytest.mark.parametrize(
    "left", ["metrics.jsonl", "evaluations.jsonl", "policy.json", "best/policy.json", "everything"]
)
def test_a_run_that_has_trained_and_lost_its_checkpoints_is_not_begun_anew(
    left: str, finished: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    run = copy_of(finished(COMPILED), tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    for name in ("metrics.jsonl", "evaluations.jsonl", "policy.json", "best/policy.json"):
        if left not in (name, "everything"):
            (run / name).unlink()
    before = content(run)
    code, error = refused("resume", run)
    assert code == 1
    assert f"{run}/checkpoints holds no checkpoint, but the run has trained: there are " in error
    assert "to begin anew instead, train into another directory, or move these files away and resume" in error
    assert (
        left if left != "everything" else "metrics.jsonl, evaluations.jsonl, policy.json, best/policy.json"
    ) in error
    assert content(run) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "new", "best", "tensorboard", "checkpoints"])
def test_no_command_follows_a_link_inside_of_a_run(
    name: str, finished: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    run, outside = copy_of(finished(COMPILED), tmp_path / "run"), tmp_path / "outside"
    back_to(run, 512)
    outside.mkdir()
    (outside / ".note.tmp").write_text("mine")
    (outside / "metrics.jsonl").write_text("mine")
    place = run / ("metrics.jsonl" if name == "new" else name)
    shutil.move(place, tmp_path / "aside")
    place.symlink_to(outside / name if place.suffix else outside)
    before = content(tmp_path)
    for words in (["resume", run], ["evaluate", run], ["evaluate", run, "--best"], ["compare", "--from", run]):
        code, error = refused(*words)
        assert code == (2 if words[0] == "compare" else 1)
        assert words[0] == "compare" or f"{place} is a link" in error
    with pytest.raises(DamagedFile, match=f"{place} is a link"):
        jumar_library.load(run)
    assert content(tmp_path) == before


def test_a_policy_is_not_read_through_a_link(finished: Callable[[list[str]], Path], tmp_path: Path) -> None:
    run = finished(COMPILED)
    (tmp_path / "run").symlink_to(run)
    assert jumar_library.load_policy(tmp_path / "run").predict(np.zeros(4, np.float32))[0].shape == ()
    for name in ("policy.json", "policy.safetensors"):
        (tmp_path / name).symlink_to(run / name)
    with pytest.raises(DamagedFile, match=r"policy\.json is a link"):
        jumar_library.load_policy(tmp_path)


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard"])
def test_a_log_that_is_lost_is_named_at_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"

    def write_configs(*words: Any) -> None:
        keeper.write_configs(*words)
        # Root may write anywhere, so something is in the way.
        (run / name).touch() if name == "tensorboard" else (run / name).mkdir()

    monkeypatch.setattr(commands, "write_configs", write_configs)
    code, error = refused(*COMPILED, "--eval-every", "0", "--run-dir", run)
    assert code == 1
    assert error.startswith("training is done, but ")
    assert f"{name} could not be saved in {run}." in error


def test_a_stop_names_the_log_that_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, flag, write = tmp_path / "run", StopFlag(), Files.iteration

    def blocked(saving: Files, lane: int, metrics: dict[str, Any]) -> None:
        (run / "metrics.jsonl").mkdir(exist_ok=True)
        write(saving, lane, metrics)
        flag.signal = signal.SIGTERM

    monkeypatch.setattr(commands, "stop_on_signals", lambda announce: contextlib.nullcontext(flag))
    monkeypatch.setattr(Files, "iteration", blocked)
    code, error = refused(*COMPILED, "--run-dir", run)
    assert code == 143
    assert "metrics.jsonl could not be saved in" in error
    assert "everything is saved" not in error


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluations.jsonl"])
def test_a_log_that_was_changed_is_said_on_resume_and_training_goes_on(
    name: str, finished: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    run = copy_of(finished(COMPILED), tmp_path / "run")
    back_to(run, 512)
    assert "changed or cut" not in spoken("resume", copy_of(run, tmp_path / "sound"))[1]
    path = run / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    code, said = spoken("resume", run)
    assert code == 0
    assert f"{path} was changed or cut after the run wrote it" in said
    assert digest(run) == digest(finished(COMPILED))


def test_the_best_policy_is_taken_back_to_the_step_that_a_run_goes_on_from(
    finished: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    run = copy_of(finished(COMPILED), tmp_path / "run")
    for name in ("policy.json", "policy.safetensors"):  # as if the last policy had been the best
        shutil.copy(run / name, run / "best" / name)
    back_to(run, 512)
    jumar("resume", run, "--total-timesteps", "512")
    (evaluated,) = logs.read(run / "evaluations.jsonl")
    assert evaluated["step"] == read_policy_files(run / "best")[1]["step"] == 512
    best = jumar("evaluate", run, "--best", "--episodes", "2")
    assert best["returns"] == jumar("evaluate", run, "--episodes", "2")["returns"]


def test_a_run_that_goes_on_from_before_its_first_evaluation_has_no_best_policy(tmp_path: Path) -> None:
    run = tmp_path / "run"
    jumar(*COMPILED, "--eval-every", "768", "--run-dir", run)
    assert (run / "best" / "policy.json").exists()
    back_to(run, 512)
    jumar("resume", run, "--total-timesteps", "512")
    assert not (run / "best").exists()
    code, error = refused("evaluate", run, "--best")
    assert (code, "never evaluated" in error) == (2, True)


def test_a_total_that_is_reached_already_is_answered_by_finished(
    finished: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    run = copy_of(finished(COMPILED), tmp_path / "run")
    code, said = spoken("resume", run, "--total-timesteps", "1024")
    assert code == 0
    assert "is finished: it has trained for 1024 steps" in said
    assert digest(run) == digest(finished(COMPILED))
    assert what_is_logged(run) == what_is_logged(finished(COMPILED))
    code, error = refused("resume", run, "--total-timesteps", "1023")
    assert code == 2
    assert "total_timesteps=1023, but" in error
    assert "already trained for 1024 steps" in error


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_newer_jumars_checkpoint_is_refused_and_left_alone(
    finished: Callable[[list[str]], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(finished(COMPILED), tmp_path / "run")
    path = run / "checkpoints" / "000000001024" / DESCRIPTION
    description = read_json(path, "checkpoint")
    arrays = description.pop("arrays")
    with monkeypatch.context() as newer:
        newer.setattr(files, "FORMAT", files.FORMAT + 1)
        path.write_bytes(encode_json("checkpoint", description, arrays))
    before = content(run)
    code, error = refused("resume", run, "--total-timesteps", "2048")
    assert code == 1
    assert "written by a newer Jumar" in error
    after = content(run)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize("command", [COMPILED, pytest.param(HOST, marks=pytest.mark.slow)], ids=["compiled", "host"])
def test_an_evaluation_gives_way_to_a_signal_and_is_repeated(
    command: list[str], finished: Callable[[list[str]], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, flag, evaluate = tmp_path / "run", StopFlag(), Training.evaluate

    def interrupted(training: Training, lane: int, episodes: int, stop: Any) -> dict[str, Any]:
        flag.signal = signal.SIGTERM
        return evaluate(training, lane, episodes, stop)

    with monkeypatch.context() as stopping:
        stopping.setattr(commands, "stop_on_signals", lambda announce: contextlib.nullcontext(flag))
        stopping.setattr(Training, "evaluate", interrupted)
        code, error = refused(*command, "--run-dir", run)
    assert code == 143
    assert "stopped after 512 steps" in error
    assert "Go on from step 256, the last checkpoint" in error
    assert CheckpointStore(run / "checkpoints").steps() == [0, 256]
    assert logs.read(run / "evaluations.jsonl") == []
    assert read_policy_files(run)[1]["step"] == 512
    jumar("resume", run)
    assert digest(run) == digest(finished(command))
    assert what_is_logged(run) == what_is_logged(finished(command))


def test_a_stop_is_announced_to_those_who_want_quiet_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(announce: Callable[[str], None]) -> None:
        announce("SIGTERM: stopping")
        raise UsageError("stopped.")

    monkeypatch.setattr(commands, "stop_on_signals", stop)
    assert spoken(*COMPILED, "--quiet") == (2, "warning: SIGTERM: stopping jumar: error: stopped.")


@pytest.mark.parametrize("env", ["jax/CartPole-v1", "gymnasium/CartPole-v1"])
def test_episodes_of_an_evaluation_that_do_not_end_are_cut_and_counted(
    env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "LONGEST", 6)  # no pole falls so soon
    training = jumar_library.PPO(env, n_envs=2, n_steps=32, batch_size=32, net_arch=(8,))._training
    said = io.StringIO()
    training.reporter = Silent(said)
    record = training.evaluate(0, 3)
    assert (record["cut_episodes"], record["lengths"], record["returns"]) == (3, [6] * 3, [6.0] * 3)
    assert "3 of 3 episodes of the evaluation had not ended after 6 steps and were cut" in said.getvalue()
    training.close()


def endless(reward: Callable[..., Any]) -> Training:
    probe = Probe(reward, length=10**9)
    return jumar_library.PPO(probe, n_envs=2, n_steps=32, batch_size=32, net_arch=(8,))._training


def test_an_evaluation_that_cannot_end_is_cut_by_the_size_of_the_training_and_said_once() -> None:
    training, said = endless(one), io.StringIO()
    training.reporter = Silent(said)
    training.plan = dataclasses.replace(training.plan, eval_every=400)
    for _ in range(2):
        record = training.evaluate(0, 1)
        assert (record["cut_episodes"], record["lengths"], record["cut_returns"]) == (1, [200], [200.0])
    assert said.getvalue().count("had not ended after 200 steps and were cut") == 1
    assert said.getvalue().count("report truncated after so many") == 1


def test_the_best_policy_is_not_one_whose_losses_were_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted = iter([(-200.0, []), (-100.0, [-100.0]), (-150.0, [])])

    def evaluate(training: Training, *_: Any) -> dict[str, Any]:
        mean, cut = next(scripted)
        return {
            "step": training.steps,
            "mean_return": mean,
            "returns": [mean],
            "cut_episodes": len(cut),
            "cut_returns": cut,
        }

    monkeypatch.setattr(Training, "evaluate", evaluate)
    agent = jumar_library.PPO(Probe(one, length=10**9), n_envs=2, n_steps=32, batch_size=32, net_arch=(8,))
    agent.learn(128, eval_every=64, run_dir=tmp_path / "run")
    assert agent._training.best == [-200.0]
    assert agent._training.last_cut == [1]
    agent._training.restore(agent._training.state, agent._training.record)
    agent.learn(64, eval_every=64)
    assert (agent._training.best, agent._training.last_cut) == ([-150.0], [0])


def test_a_time_limit_typed_with_the_environment_is_taken_by_every_backend() -> None:
    for backend in ("gymnasium", "envpool"):
        source = FromId(resolve(f"{backend}/CliffWalking-v1", {"max_episode_steps": 7}))
        environments = source.make_host(1, 0)
        assert environments.episode_limit == 7
        assert "--env-kwargs max_episode_steps=" in source.time_limit_remedy
        environments.close()


def test_evaluate_says_what_to_do_about_episodes_that_do_not_end(
    finished: Callable[[list[str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(COMPILED)
    monkeypatch.setattr(evaluation, "LONGEST", 3)
    code, said = spoken("evaluate", run, "--episodes", "2")
    assert code == 0
    assert said.count("2 of 2 episodes of the evaluation had not ended after 3 steps and were cut") == 1
    with pytest.warns(UserWarning, match="2 of 2 episodes .* report truncated"):
        jumar_library.evaluate_policy(jumar_library.load(run), "jax/CartPole-v1", 2)


def test_episodes_that_end_are_not_counted_as_cut(finished: Callable[[list[str]], Path]) -> None:
    assert [entry["cut_episodes"] for entry in logs.read(finished(COMPILED) / "evaluations.jsonl")] == [0, 0]


def test_loading_says_what_was_passed_over_and_which_policy_lies_beside(
    finished: Callable[[list[str]], Path], tmp_path: Path
) -> None:
    run = copy_of(finished(COMPILED), tmp_path / "run")
    (run / "checkpoints" / "000000001024" / "state.safetensors").write_bytes(b"cut short")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert jumar_library.load(run).num_timesteps == 768
    words = [str(each.message) for each in caught if each.category is UserWarning]
    assert any("the checkpoint of step 1024 was passed over" in each for each in words), words
    assert any("is of step 768 and the policy beside it of step 1024" in each for each in words), words
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert jumar_library.load(finished(COMPILED)).num_timesteps == 1024


def test_a_directory_that_is_removed_under_a_run_is_made_again_with_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, log = tmp_path / "run", Files.iteration

    def removing(keeper: Files, lane: int, metrics: dict[str, Any]) -> None:
        log(keeper, lane, metrics)
        if metrics["time/total_timesteps"] == 640:
            shutil.rmtree(run)

    monkeypatch.setattr(Files, "iteration", removing)
    code, said = spoken(*COMPILED, "--run-dir", run)
    assert code == 0
    assert said.count("was removed while the run was writing to it") == 1
    monkeypatch.undo()
    assert jumar("resume", run)["total_timesteps"] == 1024
    assert jumar("evaluate", run, "--episodes", "2")["episodes"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jax/CartPole-v1", "--use-sde"], "use_sde needs a Box action space"),
        (["gymnasium/CartPole-v1", "--use-sde"], "use_sde needs a Box action space"),
        (["jax/CartPole-v1", "--workers", "2"], "workers=2, but jax/CartPole-v1 is compiled"),
        (["jax/CartPole-v1", "--n-steps", "1e30"], "n_steps=1e30 is out of range: it must be at least 1 and at most"),
        (
            ["jax/CartPole-v1", "--n-seeds", "1000000"],
            "n_seeds=1000000 is out of range: it must be at least 1 and at most",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_no_directory(words: list[str], said: str, tmp_path: Path) -> None:
    code, error = refused("train", "ppo", *words, "--total-timesteps", "64", "--run-dir", tmp_path / "run")
    assert code == 2
    assert said in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("where", "workers"), [("constructor", "0"), ("reset", "0"), ("step", "0"), ("step", "2")])
def test_an_environment_that_exits_with_0_has_not_trained(
    where: str, workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ENVIRONMENTS))
    words = ["faulty:Leaving-v0", "--env-kwargs", f"where={where}", "--workers", workers, "--eval-every", "0"]
    code, error = refused("train", "ppo", *words, *SMALL, "--total-timesteps", "64", "--run-dir", tmp_path / "run")
    assert code == 1
    assert "SystemExit: 0" in error


def test_a_cost_is_recorded_with_the_run_used_on_resume_and_told_by_the_evaluation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Episodes have four steps of velocities 1 to 4."""
    monkeypatch.syspath_prepend(ENVIRONMENTS)
    run, env = tmp_path / "run", "faulty:Runner-v0"
    small = ("--total-timesteps", "64", *SMALL, "--workers", "0", "--eval-episodes", "2")
    summary = jumar("train", "ppo", env, "--cost", "velocity:2.5", "--run-dir", run, *small)
    assert summary["ep_cost_mean"] == 2.0
    assert json.loads((run / "config.json").read_text())["cost"] == "velocity:2.5"
    jumar("resume", run, "--env", env, "--total-timesteps", "128")
    records = logs.read(run / "metrics.jsonl")
    assert [record["rollout/ep_cost_mean"] for record in records] == [2.0] * 2
    assert [record["rollout/episode_cost"] for record in records] == [2.0] * 2
    assert [record["rollout/episodes"] for record in records] == [16.0] * 2
    assert {record["mean_cost"] for record in logs.read(run / "evaluations.jsonl")} == {2.0}
    assert jumar("evaluate", run, "--env", env, "--episodes", "2")["costs"] == [2.0, 2.0]
    assert spoken("evaluate", run, "--env", env)[0] == 0
    agent = jumar_library.load(run, env=env)
    metrics: list[Any] = []
    agent.learn(64, callback=metrics.append)
    assert metrics[-1]["rollout/ep_cost_mean"] == 2.0


@pytest.mark.parametrize(
    ("cost", "words"),
    [("velocity:2", "jax/CartPole-v1 gives no info['x_velocity']"), ("speed:2", "unknown cost 'speed'")],
)
def test_a_cost_that_a_task_does_not_have_is_refused_and_nothing_is_written(
    cost: str, words: str, tmp_path: Path
) -> None:
    code, error = refused(*COMPILED, "--cost", cost, "--run-dir", tmp_path / "run")
    assert (code, words in error) == (2, True)
    assert not (tmp_path / "run").exists()
