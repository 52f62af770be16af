"""A run's numbers reach a tracker once, whoever is stopped or killed when."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import TOTAL, append, make_run, metrics_line, plan_of

from jumar import cli
from jumar.console.signals import Stopped
from jumar.errors import DamagedFile, JumarError, UsageError
from jumar.runs.run_directory import RunDirectory
from jumar.tracking import follow as job
from jumar.tracking import progress
from jumar.tracking.follow import Following, Told, follow
from jumar.tracking.trackers import TrackerFailed, Wanted

EVERY_STEP = list(range(1000, TOTAL + 1, 1000))


@dataclass
class Book:
    """A tracker's memory of one run, which outlives those who write to it."""

    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    tells: bool = False
    """Whether it says what it has."""
    on_send: Callable[[int], None] = lambda step: None
    on_settle: Callable[[], None] = lambda: None
    closed: int = 0

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.rows]

    def open(self, tracker: str, wanted: Wanted) -> Writer:
        self.wanted.append(wanted)
        return Writer(self)


class Writer:
    place = "see the book"

    def __init__(self, book: Book) -> None:
        self._book = book

    @property
    def last_step(self) -> int | None:
        return max(self._book.steps, default=progress.NOTHING) if self._book.tells else None

    def send(self, step: int, numbers: Mapping[str, float]) -> None:
        self._book.on_send(step)
        self._book.rows.append((step, dict(numbers)))

    def settle(self) -> None:
        self._book.on_settle()

    def close(self) -> None:
        self._book.closed += 1


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    made = Book()
    monkeypatch.setattr(job, "open_tracker", made.open)
    monkeypatch.setattr(job, "check_installed", lambda tracker: None)
    monkeypatch.setattr(job, "free_name", lambda tracker, project, name, given: name)
    monkeypatch.setattr(job, "BETWEEN_LOOKS", 0.0)
    return made


@pytest.fixture
def said() -> list[str]:
    return []


def go(run: RunDirectory, said: list[str] | None = None, **more: Any) -> dict[str, Any]:
    heard = [] if said is None else said
    following = Following(run.path, **{"to": "wandb", "project": "jumar", **more})
    return follow(following, Told(heard.append, lambda words: None, lambda words: None))


class Killed(BaseException):
    """Stands for the end of a process: nothing that comes after it is done."""


def kill(step: int) -> None:
    if step == 4000:
        raise Killed


def state(run: RunDirectory) -> dict[str, Any]:
    return json.loads((run.path / "follow" / "wandb" / "progress.json").read_text())


def test_a_finished_run_is_sent_once(tmp_path: Path, book: Book) -> None:
    run = make_run(tmp_path / "first")
    done = go(run)
    assert book.steps == EVERY_STEP
    assert book.rows[0][1]["eval/mean_reward"] == 10.0
    assert (done["rows"], done["step"], done["name"], done["project"]) == (10, TOTAL, "first", "jumar")
    assert book.closed == 1
    again = go(run)
    assert (again["rows"], again["step"]) == (0, TOTAL)
    append(run.metrics, [metrics_line(TOTAL + 1000)])  # it was trained for longer
    assert go(run)["rows"] == 1
    assert book.steps == [*EVERY_STEP, TOTAL + 1000]
    assert len({wanted.run_id for wanted in book.wanted}) == 1
    assert [wanted.known for wanted in book.wanted] == [False, True, True]


def test_the_settings_are_sent_and_no_path(tmp_path: Path, book: Book) -> None:
    go(make_run(tmp_path / "run", plan=plan_of(learning_rate=0.125), seed=7))
    told = book.wanted[0].settings
    assert (told["algorithm"], told["env"], told["seed"], told["total_timesteps"]) == (
        "ppo",
        "jax/CartPole-v1",
        7,
        TOTAL,
    )
    assert "0.125" in str(told["learning_rate"])
    assert str(tmp_path) not in json.dumps(told)


def test_a_run_under_way_is_followed_to_its_end(tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", steps=())
    looks = 0

    def at_work(which: RunDirectory) -> bool:
        nonlocal looks
        looks += 1
        append(run.metrics, [metrics_line(1000 * looks)])
        return looks < 5

    monkeypatch.setattr(job, "is_at_work", at_work)
    assert go(run)["rows"] == looks == 5
    assert book.steps == [1000, 2000, 3000, 4000, 5000]


def test_what_a_resumed_run_repeats_is_not_sent_again(
    tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", steps=(1000, 2000, 3000))
    looks = 0

    def at_work(which: RunDirectory) -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:  # it went on from step 1000
            run.metrics.write_text("")
            append(run.metrics, map(metrics_line, (1000, 2000, 3000, 4000)))
        return looks < 3

    monkeypatch.setattr(job, "is_at_work", at_work)
    go(run)
    assert book.steps == [1000, 2000, 3000, 4000]


def test_what_was_being_sent_when_it_was_killed_is_not_sent_again(tmp_path: Path, book: Book, said: list[str]) -> None:
    run = make_run(tmp_path / "run")
    book.on_send = kill
    with pytest.raises(Killed):
        go(run)
    assert (state(run)["step"], state(run)["sending"]) == (progress.NOTHING, TOTAL)
    book.on_send = lambda step: None
    append(run.metrics, [metrics_line(TOTAL + 1000)])
    go(run, said)
    assert book.steps == [1000, 2000, 3000, TOTAL + 1000]
    assert [words for words in said if "from 0 to 10,000" in words and "not sent again" in words]
    go(run, said)
    assert len(said) == 1


def test_a_tracker_that_tells_what_it_has_gets_exactly_the_rest(tmp_path: Path, book: Book, said: list[str]) -> None:
    run = make_run(tmp_path / "run")
    book.tells, book.on_send = True, kill
    with pytest.raises(Killed):
        go(run)
    book.on_send = lambda step: None
    go(run, said)
    assert book.steps == EVERY_STEP
    assert said == []
    del book.rows[5:]  # somebody went back to a copy of the tracker's database
    go(run)
    assert book.steps == EVERY_STEP


def test_a_tracker_that_fails_is_closed_and_sending_goes_on(tmp_path: Path, book: Book) -> None:
    run = make_run(tmp_path / "run")
    book.tells = True

    def fail() -> None:
        book.rows.pop()
        raise TrackerFailed("the disk is full.")

    book.on_settle = fail
    with pytest.raises(TrackerFailed, match="the disk is full"):
        go(run)
    assert book.closed == 1
    book.on_settle = lambda: None
    go(run)
    assert book.steps == EVERY_STEP


def test_a_signal_ends_it_after_the_rows_that_were_begun(tmp_path: Path, book: Book) -> None:
    run = make_run(tmp_path / "run")
    book.on_send = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 2000 else None
    with pytest.raises(Stopped, match="stopped after 10 rows; the same command goes on") as stopped:
        go(run)
    assert (stopped.value.exit_code, book.closed) == (143, 1)
    book.on_send = lambda step: None
    assert go(run)["rows"] == 0
    assert book.steps == EVERY_STEP


@pytest.mark.parametrize("another", [False, True])
def test_a_run_that_is_gone_ends_it(tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch, another: bool) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(job, "is_at_work", lambda which: True)

    def remove() -> None:
        os.rename(run.path, tmp_path / "away")
        if another:
            shutil.copytree(tmp_path / "away", run.path)

    monkeypatch.setattr(Writer, "settle", lambda self: None)
    looks = iter([None, remove])

    def wait(self: Any, stop: Any) -> None:
        if (action := next(looks)) is not None:
            action()

    monkeypatch.setattr(job.Follower, "_wait", wait)
    with pytest.raises(JumarError, match="run is gone; 10 rows were sent up to step 10,000"):
        go(run)
    assert book.closed == 1


def test_progress_that_cannot_be_noted_ends_it_before_anything_is_sent(
    tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")

    def refuse(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress, "write_json", refuse)
    with pytest.raises(JumarError, match=r"progress\.json cannot be written \(No space left on device\)"):
        go(run)
    assert (book.rows, book.closed) == ([], 1)


def test_one_process_at_a_time_sends_a_run_to_a_tracker(tmp_path: Path, book: Book) -> None:
    run = make_run(tmp_path / "run")
    with progress.ProgressFile.of(run, "wandb"):
        with pytest.raises(UsageError, match=f"follow/wandb is in use by process {os.getpid()}"):
            go(run)
        assert go(run, to="trackio", name="other")["rows"] == 10


def test_another_project_or_name_needs_a_decision(tmp_path: Path, book: Book) -> None:
    run = make_run(tmp_path / "run")
    go(run, project="it's", name="mine")
    with pytest.raises(UsageError, match=r"give --project 'it'\"'\"'s', or remove .*follow/wandb to send it anew"):
        go(run, name="mine")
    with pytest.raises(UsageError, match="as 'mine' in the project \"it's\"; give --name mine"):
        go(run, project="it's", name="other")
    assert go(run, project="it's")["name"] == "mine"


def test_a_run_without_numbers_is_refused(tmp_path: Path, book: Book) -> None:
    run = make_run(tmp_path / "run", steps=())
    with pytest.raises(UsageError, match="has logged nothing, and no process works on it"):
        go(run)
    run.metrics.unlink()
    with pytest.raises(UsageError, match="has logged nothing"):
        go(run)
    assert not (run.path / "follow").exists()


def test_of_several_seeds_one_is_followed(tmp_path: Path, book: Book) -> None:
    several = make_run(tmp_path / "five", plan=replace(plan_of(), n_seeds=2), steps=())
    one = make_run(several.seed(0).path)
    with pytest.raises(UsageError, match=r"holds several seeds; follow one of them, such as .*five/seed_0"):
        go(several)
    assert go(one)["rows"] == 10


def test_damaged_and_foreign_files_are_refused(tmp_path: Path, book: Book) -> None:
    run = make_run(tmp_path / "run")
    go(run)
    file = run.path / "follow" / "wandb" / "progress.json"
    file.write_text(file.read_text().replace('"step": 10000', '"step": 1'))
    with pytest.raises(DamagedFile, match=r"progress\.json"):
        go(run)
    progress.ProgressFile(file.parent).write(progress.Progress("p", "n", "../../id"))
    with pytest.raises(DamagedFile, match="16 hexadecimal digits"):
        go(run)
    file.unlink()
    file.symlink_to(run.config)
    with pytest.raises(DamagedFile, match=r"progress\.json is a link"):
        go(run)
    shutil.rmtree(run.path / "follow")
    (run.path / "follow").symlink_to(tmp_path)
    with pytest.raises(DamagedFile, match="follow is a link"):
        go(run)


def test_names_that_fit_no_tracker_are_told_once(tmp_path: Path, book: Book, said: list[str]) -> None:
    run = make_run(tmp_path / "run", more={"train/\x1b[31m": 1.0})
    done = go(run, said)
    assert said == ["some numbers are not sent, as their names fit no tracker: 'train/\\x1b[31m'."]
    assert done["left_out"] == ["train/\x1b[31m"]
    assert all("\x1b" not in name for _, numbers in book.rows for name in numbers)


# The command ---------------------------------------------------------------------------------------------------------


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    code = cli.main(["follow", *words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def test_the_command_says_what_it_did(tmp_path: Path, book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    code, told, err = answer(capsys, str(run), "--to", "wandb", "--project", "p", "--name", "n")
    assert code == 0
    assert {key: told[key] for key in ("to", "project", "name", "rows", "step", "place")} == {
        "to": "wandb",
        "project": "p",
        "name": "n",
        "rows": 10,
        "step": TOTAL,
        "place": "see the book",
    }
    assert "Ctrl-C ends this, and the run goes on" in err
    assert cli.main(["follow", str(run), "--to", "wandb", "--project", "p"]) == 0
    assert "0 rows sent to wandb, project p, as n; the run is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{run}"], "--to is missing; for example: jumar follow {run} --to trackio"),
        (["{run}", "--to", "wandbb"], "unknown tracker 'wandbb'; did you mean wandb?"),
        (["--to", "wandb"], "RUN is missing; for example: jumar follow runs/my_run --to trackio"),
        (["{run}", "--to", "wandb", "--project", " "], "--project: ' ' is not a name"),
        (["{run}", "--to", "wandb", "--name", "a\x1bb"], "--name: 'a\\x1bb' is not a name"),
        (["{run}x", "--to", "wandb"], "there is no run at {run}x; did you mean {run}?"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path, book: Book, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    run = str(make_run(tmp_path / "run"))
    code, told, _ = answer(capsys, *(word.format(run=run) for word in words))
    assert (code, sentence.format(run=run) in told["error"]) == (2, True), told


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    code, told, _ = answer(capsys, str(make_run(tmp_path / "run")), "--to", tracker)
    assert (code, f"{tracker} is not installed: pip install 'jumar[follow]'" in told["error"]) == (2, True)
