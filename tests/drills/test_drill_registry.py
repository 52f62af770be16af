"""Drills by name, what came of them as a table, and the command."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jumar.drills import command, registry
from jumar.drills.references import References
from jumar.drills.registry import Bench, Drill, Try, Unable, drills, select
from jumar.drills.results import Report, Result
from jumar.drills.runner import run_drills
from jumar.errors import UsageError


def made(name: str, work: Callable[[Bench], Iterator[Try]], quick: int = 1, whole: int | None = 3) -> Drill:
    return Drill(name, "something is done.", "nothing is lost.", work, whole, quick)


def sound(bench: Bench) -> Iterator[Try]:
    for number in range(bench.tries or 0):
        yield Try(f"try {number}")


def losing(bench: Bench) -> Iterator[Try]:
    (bench.folder / "log").write_text("what there was")
    os.mkfifo(bench.folder / "pipe")
    (bench.folder / "link").symlink_to("nowhere")
    yield Try("first")
    yield Try("second", "the policy is another one")
    raise ValueError("the drill broke")


def unable(bench: Bench) -> Iterator[Try]:
    raise Unable("there is no disk here.")
    yield


def idle(bench: Bench) -> Iterator[Try]:
    yield from ()


SOME = (made("kills/one", sound, 2), made("disks/two", losing), made("disks/three", unable, 0), made("fuzz/four", idle))


def bench(folder: Path, tries: int | None = None) -> Bench:
    return Bench(folder, folder, tries, True, 0, random.Random(0), References(folder / "references"))


def test_every_drill_says_what_it_does_and_belongs_to_a_group() -> None:
    found = drills()
    assert len({each.name for each in found}) == len(found)
    assert [each.group for each in found] == sorted((each.group for each in found), key=registry.GROUPS.index)
    assert {each.group for each in found} == set(registry.GROUPS)
    for each in found:
        for sentence in (each.what, each.survived):
            assert sentence.endswith("."), each.name
            assert "  " not in sentence, each.name
        assert each.quick <= (each.whole or each.quick), each.name
    with pytest.raises(ValueError, match="kills/compiled is there already"):
        registry.drill("kills/compiled", "x.", "y.")(sound)
    with pytest.raises(ValueError, match="its group is none of"):
        registry.drill("nothing/new", "x.", "y.")(sound)


def test_names_stand_for_drills_and_groups() -> None:
    def names(*words: str, quick: bool = False) -> list[str]:
        return [each.name for each in select(SOME, words, quick)]

    assert names() == ["kills/one", "disks/two", "disks/three", "fuzz/four"]
    assert names("disks", "kills/one") == ["kills/one", "disks/two", "disks/three"]
    assert names("disks", quick=True) == ["disks/two"]
    with pytest.raises(UsageError, match=r"unknown drill 'disk'; did you mean disks"):
        names("disk")
    with pytest.raises(UsageError, match="--quick leaves out disks/three"):
        names("disks/three", quick=True)


@pytest.mark.parametrize(("tries", "expected"), [(None, 5), (2, 2), (5, 5), (12, 12)])
def test_cases_are_all_of_them_or_so_many(tries: int | None, expected: int, tmp_path: Path) -> None:
    drawn = list(bench(tmp_path, tries).cases("abcde"))
    assert len(drawn) == expected
    assert all(abs(drawn.count(x) - expected / 5) < 1 for x in "abcde")  # evenly, as far as can be
    assert drawn[:5] == sorted(drawn[:5])


def test_what_was_lost_is_told_and_its_files_are_kept(tmp_path: Path) -> None:
    heard: list[str] = []
    results = run_drills(
        SOME, tmp_path / "work", tmp_path / "out", quick=True, ended=lambda x: heard.append(x.drill.name)
    )
    assert sorted(heard) == sorted(each.name for each in SOME)
    one, two, three, four = results
    assert (one.cells[1:4], two.cells[1:4], three.cells[1:4]) == (("2", "2", "0"), ("3", "1", "2"), ("0", "0", "0"))
    assert [each.lost for each in two.losses] == [
        "the policy is another one",
        "it failed itself: ValueError: the drill broke",
    ]
    assert three.unable == "there is no disk here."
    assert four.losses[0].lost == "it tried nothing"
    kept = Path(two.kept or "")
    assert sorted(os.listdir(kept)) == ["link", "log"]
    assert not list((tmp_path / "work").glob("*-*"))
    assert one.kept is None


def test_several_drills_run_at_a_time(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=30)

    def waiting(bench: Bench) -> Iterator[Try]:
        both.wait()
        yield Try("met")

    pair = [made("kills/a", waiting), made("kills/b", waiting)]
    results = run_drills(pair, tmp_path / "work", tmp_path / "out", jobs=2)
    assert [result.losses for result in results] == [[], []]


def test_the_table_is_written_and_read_by_programs(tmp_path: Path) -> None:
    report = Report(["python", "-m", "jumar.drills", "--quick"], 7, seconds=75.0)
    report.results = [
        Result(SOME[0], [Try("a"), Try("b", None, "3 MiB")], 1.26),
        Result(SOME[1], [Try("c", "the policy\x1b is gone")], 2.0),
    ]
    report.results.append(Result(SOME[2], unable="there is no disk here."))
    report.write(tmp_path)
    data = json.loads((tmp_path / "drills.json").read_text())
    assert data["command"] == "python -m jumar.drills --quick"
    assert [each["lost"] for each in data["drills"]] == [0, 1, 0]
    assert data["drills"][0] | {"fault": "kills/one", "tries": 2, "survived": 2, "seconds": 1.3} == data["drills"][0]
    text = (tmp_path / "drills.md").read_text()
    assert (
        "| fault | tries | survived | lost | seconds |\n| --- | ---: | ---: | ---: | ---: |\n| kills/one | 2 | 2 | 0 | 1 |"
        in text
    )
    assert "Not run:\n\n- disks/three: there is no disk here." in text
    assert "- disks/two: c: the policy" in text
    words = report.words()
    assert words.endswith("3 faults, 1 lost, in 1:15")
    assert "measured: kills/one: b: 3 MiB\nlost: disks/two: c: the policy" in words
    assert "Measured:\n\n- kills/one: b: 3 MiB\n" in text
    assert data["drills"][0]["measured"] == {"b": "3 MiB"}
    assert "kills/one        2         2     0        1" in words


def test_the_command_ends_with_1_where_something_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "drills", lambda: SOME)
    assert command.main(["kills", "--quick", "--out", "x"]) == 0
    said = capsys.readouterr()
    assert "2 faults, nothing was lost" in said.out
    assert "kills/one: 2 survived" in said.err
    assert json.loads(Path("x/drills.json").read_text())["drills"][0]["fault"] == "kills/one"
    assert command.main(["--only", "disks/two", "--tries", "1"]) == 1
    [folder] = Path().glob("drills_*")
    assert "LOST" in capsys.readouterr().err
    assert (folder / "lost" / "disks-two" / "log").exists()
    assert command.main(["--list"]) == 0
    assert "kills/one\n    something is done.\n    Survived: nothing is lost." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kill"], "unknown drill 'kill'; did you mean kills"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--tries", "0"], "--tries must be at least 1"),
    ],
)
def test_wrong_words_are_refused(words: list[str], said: str, capsys: Any) -> None:
    assert command.main(words) == 2
    assert said in capsys.readouterr().err
