"""Whole comparisons: what is trained, what is reported, what is kept when something stops, fails or is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import plan_of

from jumar.algorithms import registry
from jumar.cli import main
from jumar.errors import DamagedFile, JumarError, UsageError
from jumar.runs import files, logs
from jumar.runs.run_directory import RunDirectory
from jumar.settings import setting
from jumar.studies import compare as comparing
from jumar.studies import processes
from jumar.studies.cells import Cell, Job, beside_defaults, cells_of
from jumar.studies.compare import compare
from jumar.studies.compare_request import CompareRequest
from jumar.studies.executor import Failure
from jumar.studies.found_runs import read_earlier
from jumar.studies.methods import Method, read_methods

ENVIRONMENTS = Path(__file__).parents[1] / "envs"
SMALL = "n_envs=2,n_steps=32,net_arch=8,preset=none"
PPO, A2C = f"ppo:{SMALL},n_epochs=1,batch_size=32", f"a2c:{SMALL}"
WORDS = ["--algorithms", f"{PPO},{A2C}", "--envs", "jax/CartPole-v1", "--seeds", "2"]
WORDS += ["--total-timesteps", "1024", "--eval-every", "256", "--eval-episodes", "2", "--last", "3"]


def jumar(*words: str | Path) -> tuple[int, dict[str, Any], str]:
    """Run the command in this process; return its exit code, what ``--json`` prints, and what it says beside it."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main([*map(str, words), "--json"])
    return code, json.loads(output.getvalue().splitlines()[-1]), errors.getvalue()


def request(**changes: Any) -> CompareRequest:
    """Return the request that ``WORDS`` make, with changes."""
    asked: dict[str, Any] = {
        "methods": read_methods(f"{PPO},{A2C}"),
        "envs": ("jax/CartPole-v1",),
        "n_seeds": 2,
        "total_timesteps": 1024,
        "eval_every": 256,
        "eval_episodes": 2,
        "last": 3,
    }
    return CompareRequest(**{**asked, **changes})


def policies(out: Path) -> dict[str, str]:
    """Return the digest of each final policy, by the path of its run."""
    found = [path for path in out.rglob("policy.safetensors") if path.parent.name != "best"]
    return {str(path.parent.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A comparison that nobody may change, and what it printed."""
    out = tmp_path_factory.mktemp("compared") / "c"
    code, answer, said = jumar("compare", *WORDS, "--out", out)
    assert code == 0, said
    return out, answer


@pytest.fixture
def copy(compared: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    shutil.copytree(compared[0], tmp_path / "c")
    return tmp_path / "c"


@pytest.fixture
def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def popen(words: list[str], **options: Any) -> Any:
        raise AssertionError(f"a process was started: {words}")

    monkeypatch.setattr(processes.subprocess, "Popen", popen)


def test_a_program_whose_seeds_have_no_configuration_yet_goes_on(tmp_path: Path) -> None:
    """The command may be killed, or the power fail, between a program's configuration and those of its seeds."""
    cell = Cell(Method("ppo", "ppo"), "jax/CartPole-v1", plan_of(), tmp_path)
    for name in ("seeds_0-4", "seeds_7-9999999999", "seeds_9-8", "seeds_x-y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert [job.seeds for job in cell.jobs(range(6))] == [(0, 1, 2, 3, 4), (5,)]


@pytest.mark.parametrize("name", ["logs", "tables", "runs", "run", "best", "pipe"])
def test_no_entry_of_a_comparisons_folder_may_lead_elsewhere(
    name: str, copy: Path, tmp_path: Path, nothing_trains: None
) -> None:
    out, outside = copy, tmp_path / "outside"
    outside.mkdir()
    run = next(out.glob("runs/*/*/seed*"))
    place = {"run": run, "best": next(run.rglob("best")), "pipe": out / "logs" / "new.log"}.get(name, out / name)
    if name == "pipe":
        os.mkfifo(place)
    else:
        shutil.rmtree(place)
        place.symlink_to(outside)
    with pytest.raises(DamagedFile, match=f"{re.escape(str(place))} is a (link|pipe), but must be a"):
        compare(request(out=out))
    assert os.listdir(outside) == []


def test_every_run_is_trained_and_scored(compared: tuple[Path, dict[str, Any]]) -> None:
    out, answer = compared
    assert (answer["runs"], answer["failed"], answer["out"]) == (4, 0, str(out))
    assert [row["method"] for row in answer["scores"]] == [PPO, A2C]
    results = json.loads((out / "results.json").read_text())
    for row in results["runs"]:
        last = [entry["mean_return"] for entry in logs.read(Path(row["path"]) / "evaluations.jsonl")][-3:]
        assert row["score"] == pytest.approx(np.mean(last))
        assert row["total_timesteps"] == 1024
    assert {row["seed"] for row in results["runs"]} == {0, 1}
    ours = [row["score"] for row in results["runs"] if row["method"] == PPO]
    assert answer["scores"][0]["iqm"] == pytest.approx(np.mean(ours))
    assert len(set(policies(out).values())) == 4


def test_the_report_is_written_in_words_pictures_and_tables(compared: tuple[Path, dict[str, Any]]) -> None:
    out, answer = compared
    assert set(answer["files"]) > {"report.md", "results.json", "learning_curves.png", "tables/scores.csv"}
    assert all((out / name).stat().st_size > 0 for name in answer["files"])
    assert f"| jax/CartPole-v1 | {A2C} | 2 |" in (out / "report.md").read_text()


@pytest.mark.usefixtures("nothing_trains")
def test_the_same_command_again_trains_nothing_and_says_the_same(copy: Path) -> None:
    before = (copy / "results.json").read_text()
    code, answer, said = jumar("compare", *WORDS, "--out", copy)
    assert (code, answer["failed"]) == (0, 0), said
    assert (copy / "results.json").read_text() == before.replace(
        json.loads(before)["runs"][0]["path"].split("/runs/")[0], str(copy)
    )


def test_only_what_is_missing_is_trained(copy: Path) -> None:
    [cell] = [cell.within(copy) for cell in cells_of(request(methods=read_methods(PPO)))]
    assert cell.jobs([0, 1]) == []
    assert [job.seeds for job in cell.jobs([0, 1, 2, 3, 5])] == [(2, 3), (5,)]
    policy = cell.jobs([7])[0].run.path  # a seed by itself counts as well
    shutil.copytree(cell.folder / "seeds_0-1" / "seed_0", policy)
    assert cell.jobs([7]) == []
    (cell.folder / "seeds_0-1" / "seed_1" / "policy.safetensors").write_bytes(b"damaged")
    assert [job.seeds for job in cell.jobs([0, 1])] == [(1,)]


@pytest.mark.slow
def test_a_killed_comparison_goes_on_and_its_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """It is killed once its program has checkpoints, and begun again at once, while that program is still stopping."""
    changes = {"1024": "40000", "256": "4000", f"{PPO},{A2C}": A2C}
    long = [changes.get(word, word) for word in WORDS]
    code, _, said = jumar("compare", *long, "--out", tmp_path / "whole")
    assert code == 0, said
    out = tmp_path / "c"
    command = [sys.executable, "-m", "jumar", "compare", *long, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        waited_until(lambda: len(list(out.glob("runs/*/*/seeds_0-1/checkpoints/0*"))) > 2)
        process.kill()
    assert policies(out) != policies(tmp_path / "whole")
    code, answer, said = jumar("compare", *long, "--out", out)
    assert (code, answer["failed"]) == (0, 0), said
    assert "of the steps done before" in said
    assert policies(out) == policies(tmp_path / "whole")


def waited_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_stopped_comparison_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "c"
    long = [word if word != "1024" else "4000000" for word in WORDS]
    command = [sys.executable, "-m", "jumar", "compare", *long, "--out", str(out), "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waited_until(lambda: any(out.rglob("evaluations.jsonl")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "4 runs of 4 are still to be trained. The same command goes on" in said
    assert "| 0 (2 to train) |" in (out / "report.md").read_text()
    assert len(policies(out)) == 2  # of the program that was under way


def test_what_cannot_be_is_shown_with_its_reason_and_spoils_nothing(tmp_path: Path) -> None:
    words = [word if word != f"{PPO},{A2C}" else f"acer:{SMALL},{A2C}" for word in WORDS]
    words[words.index("jax/CartPole-v1")] = "jax/Pendulum-v1"
    code, answer, said = jumar("compare", *words, "--out", tmp_path / "c")
    assert code == 1, said
    assert [(row["failed"], row["runs"]) for row in answer["scores"]] == [(2, 0), (0, 2)]
    assert all("needs a Discrete action space" in row["failure"] for row in answer["failures"])
    assert answer["error"].startswith("2 runs of 4 failed; the first: acer needs")
    assert "Each seed is tried by itself" not in said
    assert "needs a Discrete action space" in (tmp_path / "c" / "report.md").read_text()


@pytest.mark.slow
def test_an_environment_that_raises_is_shown_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ENVIRONMENTS), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(ENVIRONMENTS)
    words = [word if word != f"{PPO},{A2C}" else A2C for word in WORDS]
    words[words.index("jax/CartPole-v1")] = "faulty:Raises-v0,faulty:Walk-v0"
    words[words.index("--seeds") + 1] = "1"
    code, answer, said = jumar("compare", *words, "--out", tmp_path / "c")
    assert code == 1, said
    [failure] = answer["failures"]
    assert failure["env"] == "gymnasium/faulty:Raises-v0"
    assert "raised" in failure["failure"]
    code, answer, said = jumar("compare", *words, "--out", tmp_path / "c")  # it is tried again, and fails again
    assert (code, answer["failed"]) == (1, 1), said


def test_where_every_run_fails_the_command_fails(tmp_path: Path) -> None:
    code, answer, _ = jumar("compare", "--algorithms", "acer", "--envs", "jax/Pendulum-v1", "--out", tmp_path / "c")
    assert code == 1
    assert "no run could be compared; the first: acer needs a Discrete action space" in answer["error"]


def test_a_run_that_ends_before_its_last_evaluation_has_failed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a stop within that evaluation: the policy is saved, and has trained for the total."""
    [seed_0] = copy.glob("runs/a2c*/*/seeds_0-1/seed_0")
    logs.cut(seed_0 / "metrics.jsonl", 1000)
    logs.cut(seed_0 / "evaluations.jsonl", 1000)

    def resumed_to_no_avail(
        jobs: Any, command: Any, logs: Any, parts: int, watcher: Any, stop: Any, **options: Any
    ) -> None:
        [job] = jobs
        assert watcher.ended(job, None) == ()

    monkeypatch.setattr(comparing, "work_off", resumed_to_no_avail)
    code, answer, _ = jumar("compare", *WORDS, "--out", copy)
    assert code == 1
    assert [row["failure"] for row in answer["failures"]] == ["it ended before its last evaluation; its log says why."]


def test_a_program_that_fails_is_taken_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[tuple[int, ...]] = []

    def all_but_seed_1(
        jobs: Any, command: Any, logs: Any, processes: int, watcher: Any, stop: Any, **options: Any
    ) -> None:
        waiting = list(jobs)
        while waiting:
            job = waiting.pop(0)
            done.append(job.seeds)
            failure = Failure("seed 1 is not finite.") if 1 in job.seeds else None
            waiting += watcher.ended(job, failure)

    monkeypatch.setattr(comparing, "work_off", all_but_seed_1)
    with pytest.raises(JumarError, match="no run could be compared"):  # nothing was trained here
        compare(request(methods=read_methods(A2C), n_seeds=3, out=tmp_path / "c"))
    assert done == [(0, 1, 2), (0,), (1,), (2,)]
    runs = {row["seed"]: row["failure"] for row in json.loads((tmp_path / "c" / "results.json").read_text())["runs"]}
    untrained = "it ended before its last evaluation; its log says why."
    assert runs == {0: untrained, 1: "seed 1 is not finite.", 2: untrained}


# -- runs made earlier ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_trains")
def test_earlier_runs_are_compared_by_the_names_of_their_comparison(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    code, answer, said = jumar("compare", "--from", compared[0], "--last", "3", "--out", tmp_path / "again")
    assert code == 0, said
    assert sorted(answer["scores"], key=str) == sorted(compared[1]["scores"], key=str)


def test_earlier_runs_are_named_by_what_tells_them_apart(compared: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "runs"
    for path in compared[0].glob("runs/*/*/seeds_0-1"):
        shutil.copytree(path, out / path.parent.parent.name)
    assert {run.method for run in read_earlier([out])} == {"ppo", "a2c"}
    assert {run.env for run in read_earlier([out])} == {"jax/CartPole-v1"}
    assert len(read_earlier([out])) == 4
    [first, *_] = sorted(out.glob("ppo*/seed_0"))
    other = out / "other"
    shutil.copytree(first, other)
    config = RunDirectory(other).read_config()
    RunDirectory(other).write_config({**config, "settings": {**config["settings"], "clip_range": 0.3}})
    names = {run.method for run in read_earlier([out])}
    assert names == {"ppo:clip_range=0.2", "ppo:clip_range=0.3", "a2c"}


def test_an_earlier_run_that_is_not_finished_does_not_count(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    [first, *_] = sorted(compared[0].glob("runs/a2c*/*/seeds_0-1/seed_0"))
    shutil.copytree(first, tmp_path / "run")
    logs.cut(tmp_path / "run" / "metrics.jsonl", 512)
    [run] = read_earlier([tmp_path / "run"])
    assert run.failure == "it stopped after 512 of 1,024 steps."
    shutil.copytree(first, tmp_path / "sound")  # the same run, finished
    [run] = read_earlier([tmp_path])
    assert run.failure is None


def test_damaged_logs_fail_the_run_alone(compared: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for path in sorted(compared[0].glob("runs/a2c*/*/seeds_0-1/seed_*")):
        shutil.copytree(path, tmp_path / "runs" / path.name)
    (tmp_path / "runs" / "seed_0" / "evaluations.jsonl").write_text('{"step": 5}\n')
    damaged, sound = read_earlier([tmp_path / "runs"])
    assert damaged.failure is not None
    assert "evaluations.jsonl is damaged" in damaged.failure
    assert sound.failure is None
    evaluations, metrics = (tmp_path / "runs" / "seed_0" / f"{name}.jsonl" for name in ("evaluations", "metrics"))

    def failure() -> str:
        words = read_earlier([tmp_path / "runs"])[0].failure
        assert words is not None
        return words

    evaluations.unlink()
    assert failure() == "it was never evaluated."
    whole = (tmp_path / "runs" / "seed_1" / "evaluations.jsonl").read_bytes()
    evaluations.write_bytes(whole[:-40])
    assert "evaluations.jsonl is damaged: line 4 is no whole JSON object" in failure()
    lines = whole.splitlines(keepends=True)
    evaluations.write_bytes(b"".join([lines[0], b"garbage{\n", *lines[2:]]))
    assert "line 2 is no whole JSON object" in failure()
    evaluations.write_bytes(whole.replace(b'"mean_return": ', b'"mean_return": NaN, "was": ', 1))
    assert "a mean return is nan" in failure()
    evaluations.write_bytes(re.sub(rb'"step": \d+', b'"step": ' + b"9" * 400, whole, count=1))
    assert "a step is 9999" in failure()
    evaluations.write_bytes(b"".join(lines[:2]))
    assert "evaluations.jsonl is damaged: it ends at step 512 of 1,024." in failure()
    evaluations.write_bytes(whole + b"\n")
    metrics.write_bytes(b"garbage{\n" + metrics.read_bytes())
    assert read_earlier([tmp_path / "runs"])[0].failure is None  # what costs no score
    for number in ("NaN", "-Infinity", "9" * 400, '"many"', "[]"):
        metrics.write_text(f'{{"time/total_timesteps": {number}}}\n')
        assert failure() == "it stopped after 0 of 1,024 steps."


def test_what_a_run_was_told_and_how_it_was_scored_is_read_back(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Also where iterations are longer than what is between two evaluations, and of a run with costs."""
    about = json.loads((compared[0] / "results.json").read_text())["about"]
    told = {"algorithm": "ppo", "net_arch": [8], "n_envs": 2, "n_steps": 32, "batch_size": 32, "n_epochs": 1}
    protocol = {"total_timesteps": 1024, "eval_every": 256, "eval_episodes": 2}
    assert about["told"][0] == {"method": PPO, "env": "jax/CartPole-v1", "told": told, "protocol": protocol}
    assert "since the last 3 were due, from step 512 on" in (compared[0] / "report.md").read_text()
    [first, *_] = sorted(compared[0].glob("runs/a2c*/*/seeds_0-1/seed_0"))
    shutil.copytree(first, tmp_path / "run")
    returns = [entry["mean_return"] for entry in logs.read(first / "evaluations.jsonl")]
    assert read_earlier([tmp_path / "run"])[0].score(3) == pytest.approx(np.mean(returns[1:]))
    for name, change in (("evaluations", late), ("metrics", costing)):
        path = tmp_path / "run" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(change(i, entry)) + "\n" for i, entry in enumerate(logs.read(path))))
    [run] = read_earlier([tmp_path / "run"])
    assert run.score(3) == pytest.approx(np.mean(returns[2:]))
    assert run.cost(0.2) == pytest.approx(np.average([120.0, 130.0, 140.0, 150.0], weights=[12, 13, 14, 15]))


def late(i: int, entry: dict[str, Any]) -> dict[str, Any]:
    """An evaluation that came before the third last was due, but for the last two."""
    return {**entry, "step": (200, 500, 800, 1024)[i]}


def costing(i: int, entry: dict[str, Any]) -> dict[str, Any]:
    """An iteration with as many episodes as came before it, each ten times as dear."""
    return {**entry, "rollout/episodes": i, "rollout/episode_cost": 10.0 * i if i else None}


def test_a_run_that_was_ended_early_with_a_last_resume_counts(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Its last evaluation was before its end, but no other one was due."""
    [first, *_] = sorted(compared[0].glob("runs/a2c*/*/seeds_0-1/seed_0"))
    shutil.copytree(first, tmp_path / "run")
    config = RunDirectory(tmp_path / "run").read_config()
    RunDirectory(tmp_path / "run").write_config({**config, "eval_every": 300})
    logs.cut(tmp_path / "run" / "evaluations.jsonl", 768)
    [run] = read_earlier([tmp_path / "run"])
    assert run.failure is None


def test_settings_without_a_default_are_told() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings(registry.ALGORITHMS["ppo"].settings):
        weight: float = dataclasses.field(metadata=setting(0.0, "a weight").metadata)

    [cell] = cells_of(request(methods=(Method("plain", "ppo", {}, "none"),)))
    assert beside_defaults(cell.plan) == {"algorithm": "ppo"}
    plan = dataclasses.replace(cell.plan, settings=Settings(weight=2.0))
    assert beside_defaults(plan) == {"algorithm": "ppo", "weight": 2.0}


@pytest.mark.usefixtures("nothing_trains")
def test_earlier_runs_beside_others_are_kept_apart_and_count_once(copy: Path, tmp_path: Path) -> None:
    """The same runs once more, and runs of the same name that were told something else."""
    [first, *_] = sorted(copy.glob("runs/a2c*/*/seeds_0-1/seed_0"))
    shutil.copytree(first, tmp_path / "again")
    shutil.copytree(first, tmp_path / "other")
    config = RunDirectory(tmp_path / "other").read_config()
    RunDirectory(tmp_path / "other").write_config({**config, "settings": {**config["settings"], "gamma": 0.9}})
    words = [*WORDS, "--out", copy, "--from", copy, tmp_path / "again", tmp_path / "other"]
    code, answer, said = jumar("compare", *words)
    assert code == 0, said
    assert {row["method"]: row["runs"] for row in answer["scores"]} == {
        PPO: 2,
        A2C: 2,
        "a2c:gamma=0.99": 1,
        "a2c:gamma=0.9": 1,
    }


def test_earlier_runs_that_are_not_there_or_damaged_are_refused(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="there is no directory"):
        read_earlier([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="holds no run"):
        read_earlier([tmp_path])
    [first, *_] = sorted(compared[0].glob("runs/a2c*/*/seeds_0-1/seed_0"))
    shutil.copytree(first, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{}")
    told: list[str] = []
    with pytest.raises(UsageError, match="holds no run"):
        read_earlier([tmp_path / "run"], warn=told.append)
    assert "is left out: " in told[0]
    shutil.copytree(first, tmp_path / "sound")
    code, answer, _ = jumar("compare", "--from", tmp_path, "--out", tmp_path / "c")
    assert (code, answer["runs"]) == (0, 1)
    assert f"## Left out\n\n- {tmp_path / 'run'} is left out: " in (tmp_path / "c" / "report.md").read_text()


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is nothing to compare"),
        (["--algorithms", "ppo"], "--envs is missing"),
        (["--envs", "jax/CartPole-v1"], "--algorithms is missing"),
        (["--algorithms", "ppo,trppo", "--envs", "jax/CartPole-v1"], "did you mean trpo"),
        (["--algorithms", "ppo", "--envs", "jax/CartPole-v1,,jax/Pendulum-v1"], "missing between two commas"),
        (["--algorithms", "ppo", "--envs", "jax/CartPole-v1,jax/CartPole-v1"], "given twice"),
        (["--algorithms", "ppo", "--envs", "CartPole-v1,envpool/CartPole-v1"], "are the same one; leave one out"),
        (["--algorithms", "ppo:gamma=0.9,ppo:gamma=.90", "--envs", "jax/CartPole-v1"], "are told the same everywhere"),
        (["--algorithms", "ppo", "--envs", "jax/CartPool-v1"], "CartPole-v1"),
        (["--algorithms", "ppo:clip_rang=0.1", "--envs", "jax/CartPole-v1"], "clip_range"),
        (["--algorithms", "ppo:clip_range=-1", "--envs", "jax/CartPole-v1"], "out of range"),
        (["--algorithms", "trpo:clip_range=0.1", "--envs", "jax/CartPole-v1"], "not a setting of trpo, but of"),
        (["--algorithms", "ppo:gamma=0.9,ppo:gamma:0.9", "--envs", "jax/CartPole-v1"], "no setting of ppo"),
        (["--algorithms", "ppo", "--envs", "jax/CartPole-v1", "--preset", "Hoper-v5"], "Hopper-v5"),
        (["--algorithms", "ppo", "--envs", "jax/CartPole-v1", "--seeds", "0"], "at least 1"),
        (["--algorithms", "ppo", "--envs", "jax/CartPole-v1", "--scale", "jax/CartPole-v1=5:5"], "must go up"),
        (["--algorithms", "ppo", "--envs", "jax/CartPole-v1", "--scale", "5"], "not ENV=LOW:HIGH"),
        (
            ["--algorithms", "ppo", "--envs", "jax/CartPole-v1", "--scale", "CartPool-v1=0:5"],
            "did you mean CartPole-v1",
        ),
        (
            ["--algorithms", "ppo", "--envs", "jax/CartPole-v1", "--scale", "CartPole-v1=0:inf"],
            "from one number to another",
        ),
        (["--algorithms", "ppo", "--envs", "jax/CartPole-v1", "--from", "nowhere"], "there is no directory nowhere"),
        (["--from", "nowhere"], "there is no directory nowhere"),
        (["ppo"], "unexpected 'ppo'"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(words: list[str], said: str, tmp_path: Path) -> None:
    code, answer, _ = jumar("compare", *words, "--out", tmp_path / "c")
    assert code == 2
    assert said in answer["error"]
    assert not (tmp_path / "c").exists()


@pytest.mark.usefixtures("nothing_trains")
def test_runs_that_were_told_something_else_are_not_taken_for_those_asked_for(copy: Path) -> None:
    method = read_methods(PPO)[0]
    changed = Method(method.name, "ppo", {**method.settings, "clip_range": 0.3}, "none")
    with pytest.raises(UsageError, match=r"was trained with clip_range=0\.2, not 0\.3; give another folder"):
        compare(request(methods=(changed,), out=copy))


@pytest.mark.usefixtures("nothing_trains")
def test_another_protocol_and_a_foreign_folder_are_refused(copy: Path, tmp_path: Path) -> None:
    longer = [word if word != "1024" else "2048" for word in WORDS]
    code, answer, _ = jumar("compare", *longer, "--out", copy)
    assert (code, "was trained with total_timesteps=1024, not 2048" in answer["error"]) == (2, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    code, answer, _ = jumar("compare", *WORDS, "--out", tmp_path / "mine")
    assert (code, "is not empty, and holds no comparison" in answer["error"]) == (2, True)
    code, answer, _ = jumar("compare", *WORDS, "--out", tmp_path / "mine" / "thesis.tex")
    assert (code, "cannot be made" in answer["error"]) == (2, True)
    (copy / "comparison.json").write_text("{}")
    code, answer, _ = jumar("compare", *WORDS, "--out", copy)
    assert (code, "comparison.json" in answer["error"]) == (1, True)


@pytest.mark.usefixtures("nothing_trains")
def test_a_full_disk_spoils_no_run_and_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = policies(copy)

    def full(path: Any, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(comparing, "write_atomically", full)
    code, answer, _ = jumar("compare", *WORDS, "--out", copy)
    assert (code, "cannot be written" in answer["error"], "No space left" in answer["error"]) == (1, True, True)
    assert policies(copy) == before


def test_two_names_that_make_one_folder_are_refused() -> None:
    with pytest.raises(UsageError, match="the methods a b and a_b would be kept in one folder; rename one"):
        cells_of(request(methods=(Method("a b", "ppo"), Method("a_b", "ppo"))))


def test_no_name_leads_out_of_the_folder_or_is_too_long_for_it() -> None:
    names = ["..", "../../x", ".hidden", "n" * 300, "n" * 301]
    methods = tuple(Method(name, "ppo", {"n_epochs": i + 1}) for i, name in enumerate(names))
    cells = cells_of(request(methods=methods))
    parts = [cell.folder.parts for cell in cells]
    assert len(set(parts)) == len(names)
    assert all(len(part) == 3 and not part[1].startswith(".") and len(part[1]) < 120 for part in parts)


def test_settings_from_python_are_typed_as_a_user_would(tmp_path: Path) -> None:
    told = {"net_arch": (32, 16), "normalize_observations": True, "n_envs": 2, "target_kl": None}
    method = Method("wide", "ppo", told, "none")
    [cell] = [cell.within(tmp_path) for cell in cells_of(request(methods=(method,), n_envs=8))]
    words = Job(cell, (0, 1)).command(request(n_envs=8))
    assert (words[0], words[-3:]) == ("train", ["--", "ppo", "jax/CartPole-v1"])
    expected = {"--net-arch=32,16", "--normalize-observations=true", "--n-envs=2", "--target-kl=none", "--n-seeds=2"}
    assert expected | {"--preset=none"} < set(words)
    assert not any(word.startswith(("--cost", "--n-envs=8")) for word in words)


def test_a_method_that_only_this_process_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ALGORITHMS, "mine", registry.ALGORITHMS["ppo"])
    with pytest.raises(UsageError, match=r"mine was registered in this process.*CompareRequest\(earlier="):
        cells_of(request(methods=(Method("mine", "mine"),)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": (Method("a", "trppo"),)}, "unknown algorithm 'trppo'; did you mean trpo"),
        ({"methods": (Method(" ", "ppo"),)}, "' ' is no name for a method"),
        ({"methods": (Method("a\nb", "ppo"),)}, "'a\\nb' is no name for a method"),
        ({"envs": "jax/CartPole-v1"}, "envs must be a tuple of environments, not the text 'jax/CartPole-v1'"),
    ],
)
@pytest.mark.usefixtures("nothing_trains")
def test_mistakes_in_python_are_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        compare(request(**changes, out=tmp_path / "c"))


def test_the_state_is_one_of_jumars_files(compared: tuple[Path, dict[str, Any]]) -> None:
    state = files.read_json(compared[0] / "comparison.json", "comparison")
    assert state["methods"] == [PPO, A2C]
