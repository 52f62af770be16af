"""SLURM's commands: what they are asked, what is made of their answers. Stand-ins on the PATH answer here."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import fake_slurm
import pytest

from jumar.errors import UsageError
from jumar.studies import slurm


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM of two slots."""
    for name, value in fake_slurm.install(tmp_path / "slurm", 2).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "slurm"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("--time=4:00:00 -p short", ["--time=4:00:00", "-p", "short"]),
        ("--comment='two words'", ["--comment=two words"]),
        ("--cpus-per-gpu=2 --nodelist=a", ["--cpus-per-gpu=2", "--nodelist=a"]),
    ],
)
def test_options_of_sbatch_are_read_as_a_shell_would(text: str, words: list[str]) -> None:
    assert slurm.read_options(text) == words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--comment='two", "cannot be read: no closing quotation"),
        ("short", "must begin with an option of sbatch"),
        ("--array=0-3", "must not have --array: one is made of the jobs"),
        ("-a 0-3", "must not have -a"),
        ("--requeue", "must not have --requeue"),
        ("--no-requeue", "must not have --no-requeue"),
        ("-p short -o out.txt", "must not have -o: it goes to the study's folder"),
        ("-c4", "must not have -c4: it is --processors"),
    ],
)
def test_options_that_are_not_the_users_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        slurm.read_options(text)


def test_numbers_of_an_array_are_written_as_ranges() -> None:
    assert slurm.ranges([0, 1, 2, 3]) == "0-3"
    assert slurm.ranges([7, 3, 1, 2, 9]) == "1-3,7,9"
    assert slurm.ranges([5]) == "5"


def test_the_script_becomes_the_job_so_that_a_signal_reaches_it(tmp_path: Path) -> None:
    place = tmp_path / "a folder"
    first, second = slurm.script(place).splitlines()
    assert first == "#!/bin/sh"
    assert shlex.split(second) == [
        "exec",
        sys.executable,
        "-P",
        "-m",
        "jumar.cli.attempt",
        str(place),
        "$SLURM_ARRAY_TASK_ID",
    ]


def test_an_array_is_submitted_seen_and_accounted_for(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        slurm, "script", lambda place: f"#!/bin/sh\necho $SLURM_ARRAY_TASK_ID > {place}/done$SLURM_ARRAY_TASK_ID\n"
    )
    number = slurm.submit(tmp_path, "jumar-x", [2, 3, 5], 4, ["--time=1:00"])
    deadline = time.monotonic() + 60
    while slurm.queue(["jumar-x"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [(tmp_path / f"done{index}").read_text() for index in (2, 3, 5)] == ["2\n", "3\n", "5\n"]
    assert slurm.what_became_of(f"{number}_3") == ("COMPLETED", "node1")
    assert [task["processors"] for task in fake_slurm.tasks(cluster)] == ["4"] * 3
    slurm.cancel(f"{number}_3")  # it is over, which does not matter


def test_the_queue_is_read_and_what_is_not_a_task_of_it_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "jumar-a|12_3|PENDING|Resources\njumar-a|12_4|NODE_FAIL|None\n\nnoise\njumar-b|13|RUNNING|None\n"
    monkeypatch.setattr(slurm, "_asked", lambda command: said)
    first, second, *others = slurm.queue(["jumar-a", "jumar-b"])
    assert (first.index, first.id, first.waits, first.over) == (3, "12_3", True, False)
    assert (second.index, second.waits, second.over) == (4, False, True)
    assert others == [slurm.Queued("jumar-b", 13, "13", "RUNNING", "None")]
    assert slurm.queue([]) == []


def test_refusals_are_told_in_slurms_words(cluster: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^sbatch refused: invalid partition specified: nowhere\. Its options"):
        slurm.submit(tmp_path, "jumar-x", [0], 1, ["--partition=nowhere"])


def test_where_there_is_no_slurm_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no sbatch here; --on slurm is for the login node"):
        slurm.submit(tmp_path, "jumar-x", [0], 1, [])
    assert slurm.what_became_of("1_0") == ("", "")
    slurm.cancel("1_0")


def test_an_answer_that_is_no_number_and_one_that_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "sbatch"
    command.write_text("#!/bin/sh\necho hello\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UsageError, match=r"sbatch answered 'hello\\n' instead of the number of a job"):
        slurm.submit(tmp_path, "jumar-x", [0], 1, [])

    def late(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("sbatch", 60.0)

    monkeypatch.setattr(slurm.subprocess, "run", late)
    with pytest.raises(UsageError, match=r"^sbatch did not answer within 60 s\.$"):
        slurm.submit(tmp_path, "jumar-x", [0], 1, [])
