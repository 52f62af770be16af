"""The run directory: names, refusals, the configuration, and the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from descriptors import descriptor_of

from jumar.errors import DamagedFile, UsageError
from jumar.runs.run_directory import RunDirectory, make_study_folder

NOON = datetime(2026, 11, 20, 9, 30, 12)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made_run(path: str) -> RunDirectory:
    run = RunDirectory.create(path, "ppo", "CartPole-v1", 0)
    run.write_config({"algorithm": "ppo"})
    return run


def test_default_names_are_never_taken_twice() -> None:
    names = [str(RunDirectory.create(None, "ppo", "jax/CartPole-v1", 3, NOON)) for _ in range(3)]
    first = "runs/ppo_jax_CartPole-v1_3_20261120-093012"
    assert names == [first, first + "-2", first + "-3"]


@pytest.mark.parametrize(
    ("env_text", "name"),
    [("my.module:Env-v0", "my.module_Env-v0"), ("../../etc", ".._.._etc"), ("<lambda> x", "_lambda_x")],
)
def test_no_environment_name_leads_out_of_runs(env_text: str, name: str) -> None:
    run = RunDirectory.create(None, "a2c", env_text, 0, NOON)
    assert run.path == Path(f"runs/a2c_{name}_0_20261120-093012")
    assert run.path.is_dir()


def test_the_places_are_the_contracts() -> None:
    run = RunDirectory(Path("r"))
    places = [run.config, run.metrics, run.evaluations, run.tensorboard, run.checkpoints, run.replay]
    places += [run.policy, run.best]
    assert list(map(str, places)) == [
        "r/config.json",
        "r/metrics.jsonl",
        "r/evaluations.jsonl",
        "r/tensorboard",
        "r/checkpoints",
        "r/replay",
        "r",
        "r/best",
    ]
    assert str(run.learning_curve) == "r/learning_curve.png"
    assert str(run.seed(4)) == "r/seed_4"


def test_a_given_directory_is_made_with_its_parents_and_may_exist_empty() -> None:
    assert RunDirectory.create("a/b/c", "ppo", "E", 0).path.is_dir()
    os.mkdir("empty")
    assert RunDirectory.create("empty", "ppo", "E", 0).path == Path("empty")
    # A command that failed before it wrote anything does not take the name.
    assert RunDirectory.create("empty", "ppo", "E", 0).path == Path("empty")
    # Nor does one that was killed while it wrote the first file; what is half is removed once the run is locked.
    Path("empty/.config.json.0123abcd.tmp").write_text("{")
    with RunDirectory.create("empty", "ppo", "E", 0).lock():
        assert os.listdir("empty") == [".lock"]
    Path("empty/.other.json.0123abcd.tmp").write_text("{")
    with pytest.raises(UsageError, match="empty is not empty"):
        RunDirectory.create("empty", "ppo", "E", 0)


def test_a_given_directory_that_is_not_empty_is_refused() -> None:
    os.mkdir("full")
    Path("full/thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"^the run directory full is not empty; give a new one\.$"):
        RunDirectory.create("full", "ppo", "E", 0)
    made_run("done")
    with pytest.raises(UsageError, match="done is not empty; give a new one, or go on with it by `jumar resume`"):
        RunDirectory.create("done", "ppo", "E", 0)
    assert os.listdir("full") == ["thesis.tex"]


def test_files_in_the_way_are_named() -> None:
    Path("file").write_text("x")
    with pytest.raises(UsageError, match="the run directory file cannot be made: a file of that name is in the way"):
        RunDirectory.create("file", "ppo", "E", 0)
    with pytest.raises(UsageError, match="file/run cannot be made: a part of the path is a file"):
        RunDirectory.create("file/run", "ppo", "E", 0)
    Path("runs").write_text("x")
    with pytest.raises(UsageError, match="cannot be made: a "):
        RunDirectory.create(None, "ppo", "E", 0)
    with pytest.raises(UsageError, match="the name is too long"):
        RunDirectory.create("x" * 300, "ppo", "E", 0)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "no permission to write there"),
        (errno.ENOSPC, "no space is left on the disk"),
    ],
)
@pytest.mark.parametrize("given", ["r", None])
@pytest.mark.parametrize("operation", ["mkdir", "open"])
def test_a_place_that_cannot_be_written_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str, given: str | None, operation: str
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, operation, refuse)
    with pytest.raises(UsageError, match=f"{said}. Give another with --run-dir"):
        RunDirectory.create(given, "ppo", "E", 0)


def test_open_checks_the_configuration() -> None:
    made_run("r")
    assert RunDirectory.open("r").read_config() == {"algorithm": "ppo"}
    config = Path("r/config.json")
    config.write_text(config.read_text().replace("ppo", "sac"))
    with pytest.raises(DamagedFile, match=r"r/config\.json was changed"):
        RunDirectory.open("r")


def test_what_is_no_run_is_refused_with_the_nearest_runs() -> None:
    made_run("runs/ppo_CartPole-v1_0_20261120-093012")
    made_run("runs/ppo_Pendulum-v1_0_20261120-093012")
    os.mkdir("other")
    with pytest.raises(UsageError, match=r"^there is no run at none\.$"):
        RunDirectory.open("none")
    with pytest.raises(UsageError, match=r"^other is not a run directory: it has no config\.json\.$"):
        RunDirectory.open("other")
    near = "did you mean runs/ppo_CartPole-v1_0_20261120-093012"
    for wrong in ("runs/ppo_CartPol-v1_0_20261120-093012", "ppo_CartPole-v1_0_20261120-093012"):
        with pytest.raises(UsageError, match=near):
            RunDirectory.open(wrong)


def test_a_run_of_many_seeds_names_them() -> None:
    for seed in (10, 2, 0):
        made_run(f"many/seed_{seed}")
    os.mkdir("many/seed_7")
    os.mkdir("many/seed_x")
    assert RunDirectory(Path("many")).seeds() == [0, 2, 10]
    with pytest.raises(UsageError, match="name one of them: many/seed_0, many/seed_2, many/seed_10"):
        RunDirectory.open("many")


# The lock

HOLD = """
import os, sys, time
from pathlib import Path
from jumar.runs.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).lock():
    if sys.argv[2] == "alone":
        print(1, flush=True)
    elif os.fork() == 0:  # the child speaks: only then has it let go of the lock
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time() -> None:
    run = made_run("r")
    with (
        run.lock(),
        pytest.raises(UsageError, match=f"r is in use by process {os.getpid()}; wait for it or stop it first"),
        RunDirectory.open("r").lock(),
    ):
        pytest.fail("locked twice")
    with run.lock():
        pass
    assert RunDirectory.open("r").path == run.path


def test_a_lock_that_something_else_closed_is_told_and_no_other_file_is_closed(tmp_path: Path) -> None:
    run = made_run("run")
    lock = run.lock()
    lock.__enter__()
    opened = descriptor_of(run.path / ".lock")
    os.close(opened)
    assert os.open(tmp_path / "foreign", os.O_RDWR | os.O_CREAT) == opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        lock.__exit__(None, None, None)
    os.close(opened)  # it is open still
    with run.lock():
        pass


def test_who_looks_for_a_moment_keeps_nobody_from_locking(monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run("r")
    with run.lock():
        pass
    with open("r/.lock") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
        with run.lock():
            assert run.locked()


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_killed_process_holds_no_lock_even_if_its_children_live(how: str) -> None:
    run = made_run("r")
    with subprocess.Popen([sys.executable, "-c", HOLD, "r", how], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(UsageError, match=f"in use by process {holder.pid}"), run.lock():
                pytest.fail("locked twice")
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            with run.lock():
                pass
        finally:
            holder.kill()
            if how == "fork":
                os.kill(child, signal.SIGKILL)


def test_locking_removes_what_a_killed_writer_left() -> None:
    run = made_run("r")
    os.mkdir(run.best)
    for folder in (run.path, run.best):
        (folder / ".policy.json.0123abcd.tmp").write_bytes(b"half")
    with run.lock():
        assert sorted(os.listdir(run.path)) == [".lock", "best", "config.json"]
        assert os.listdir(run.best) == []


def test_a_read_only_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run("r")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match=r"r cannot be written \(Read-only file system\)"), run.lock():
        pytest.fail("locked")


def test_a_link_in_the_place_of_the_lock_is_not_followed() -> None:
    run = made_run("r")
    Path("precious").write_text("mine")
    os.unlink("r/.lock")
    os.symlink("../precious", "r/.lock")
    with pytest.raises(DamagedFile, match=r"r/\.lock is a link, but must be a plain file"), run.lock():
        pytest.fail("locked")
    os.rename("r/.lock", "link")
    os.link("precious", "r/.lock")
    with pytest.raises(DamagedFile, match=r"r/\.lock is a file with a second name"), run.lock():
        pytest.fail("locked")
    assert Path("precious").read_text() == "mine"
    os.unlink("r/.lock")
    os.mkdir("new")
    os.mkfifo("new/.lock")  # to open it would wait for ever
    with pytest.raises(DamagedFile, match=r"new/\.lock is a pipe"):
        RunDirectory.create("new", "ppo", "E", 0)


def test_a_study_that_was_killed_before_it_wrote_anything_begins_again_in_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    (out / "attempts").mkdir(parents=True)
    (out / ".lock").touch()
    assert make_study_folder(out, "sweep", "sweep", "trials.json", before=("attempts",)) == out
    (out / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is not empty, and holds no sweep"):
        make_study_folder(out, "sweep", "sweep", "trials.json", before=("attempts",))
