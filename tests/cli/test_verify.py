"""``jumar verify``: its table, its JSON, its exit codes and its live line."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from jumar.cli import main
from jumar.cli.verify import figure, words
from jumar.console.live_line import CLEAR, LiveLine
from jumar.verification import registry
from jumar.verification.registry import Check, Result


def broken() -> float:
    raise RuntimeError("it broke")


def interrupted() -> float:
    raise KeyboardInterrupt


GOOD = Check("group/good", "one thing against another", 1e-6, lambda: 2.5e-7, quick=True)
BAD = Check("group/bad", "one thing against another", 0.1, lambda: 0.25)
RAISES = Check("group/raises", "one thing against another", 0.0, broken)


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(*checks: Check) -> None:
        monkeypatch.setattr(registry, "checks", lambda: checks)

    return put


def test_checks_that_pass(some: Any, capsys: Any) -> None:
    some(GOOD)
    assert main(["verify"]) == 0
    told = capsys.readouterr()
    header, row, empty, last = told.out.splitlines()
    assert header.split() == ["check", "measured", "bound", "seconds", "what", "is", "compared"]
    assert row.split() == ["pass", "group/good", "2.5e-07", "1.0e-06", "0.0", "one", "thing", "against", "another"]
    assert (empty, last) == ("", "1 check passed, in 0 s")
    assert told.err == "", "there is no live line where there is no terminal"


def test_a_check_that_fails_gives_exit_1_and_the_right_json(some: Any, capsys: Any) -> None:
    some(GOOD, BAD, RAISES)
    assert main(["verify", "--json"]) == 1
    told = capsys.readouterr()
    found = json.loads(told.out.splitlines()[-1])
    assert (found["passed"], found["failed"]) == (1, 2)
    good, bad, raises = found["checks"]
    assert {"name", "passed", "measured", "bound", "seconds"} <= set(good)
    assert (good["name"], good["passed"], good["measured"], good["bound"]) == ("group/good", True, 2.5e-7, 1e-6)
    assert (bad["passed"], bad["measured"]) == (False, 0.25)
    assert (raises["passed"], raises["measured"], raises["error"]) == (False, None, "RuntimeError: it broke")


def test_failures_are_said_below_the_table(some: Any, capsys: Any) -> None:
    some(GOOD, BAD, RAISES)
    assert main(["verify", "group"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("FAIL  group/bad ")
    assert "  group/bad: one thing against another: 0.25 is not at most 0.1" in lines
    assert "  group/raises: RuntimeError: it broke" in lines
    assert lines[-1].startswith("1 check passed, 2 failed, in ")


def test_ctrl_c_ends_it_as_other_commands(some: Any, capsys: Any) -> None:
    some(Check("group/slow", "words", 1.0, interrupted))
    assert main(["verify", "--json"]) == 130
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"error": "interrupted."}


def test_list_names_all_checks_and_runs_none(some: Any, capsys: Any) -> None:
    some(GOOD, RAISES)
    assert main(["verify", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["group/good", "group/raises"]
    assert main(["verify", "--list", "--quick", "--json"]) == 0
    [one] = json.loads(capsys.readouterr().out)["checks"]
    assert one == {"name": "group/good", "what": "one thing against another", "bound": 1e-6, "quick": True}


def test_an_unknown_name_is_a_mistake_of_the_command(capsys: Any) -> None:
    assert main(["verify", "gradiens/ppo"]) == 2
    assert "unknown check 'gradiens/ppo'; did you mean gradients/ppo" in capsys.readouterr().err


@pytest.mark.parametrize("width", [30, 80, 120])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    results = [Result(each, 0.5, 1.25, error) for each, error in ((GOOD, None), (RAISES, "RuntimeError: it broke"))]
    lines = words(results, width).splitlines()
    assert max(map(len, lines)) <= width, lines
    assert any("group/good" in line for line in lines)


def test_figures() -> None:
    assert [figure(x) for x in (0.0, 1.0, 0.25, 1.3e-6, 1e-3, 5.0)] == ["0", "1", "0.25", "1.3e-06", "1.0e-03", "5"]


class Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self) -> bool:
        return True


def test_the_live_line_is_cut_to_the_terminal_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    line = LiveLine(terminal, {"TERM": "xterm"})
    line.show("1 of 70  gradients/ppo-penalty")
    line.close()
    line.close()
    assert terminal.getvalue() == CLEAR + "1 of 70  gradients/" + CLEAR


@pytest.mark.parametrize("term", ["dumb", ""])
def test_nothing_is_written_over_where_that_cannot_be_done(term: str) -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream, environment in ((terminal, {"TERM": term}), (file, {"TERM": "xterm"})):
        line = LiveLine(stream, environment)
        line.show("words")
        line.close()
    assert terminal.getvalue() == file.getvalue() == ""
