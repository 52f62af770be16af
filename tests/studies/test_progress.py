"""What a person sees of a comparison."""

from __future__ import annotations

import io

import pytest

from jumar.studies import progress
from jumar.studies.progress import Bar, Lines, Quiet, make_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(shown: progress.Progress) -> None:
    shown.began(1_000, 4, 250)
    shown.moved(500, ["ppo on A, seed 0", "ppo on A, seed 1", "ppo on A, seed 2"])
    shown.ended("ppo on A, seed 0: 12.0")
    shown.warn("[red] is no colour here")
    shown.note("a note")
    shown.close()
    shown.close()


def test_a_log_has_lines() -> None:
    stream = io.StringIO()
    told(Lines(stream))
    assert stream.getvalue().splitlines() == [
        "4 runs to train, 1,000 steps in all, 25 % of the steps done before",
        " 50 %  ppo on A, seed 0: 12.0",
        "warning: [red] is no colour here",
        "a note",
    ]


def test_a_log_says_now_and_then_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Lines(stream)
    shown.began(1_000, 4, 200)
    for now[0], steps in ((30.0, 300), (60.0, 400), (90.0, 500)):
        shown.moved(steps, ["a", "b", "c"])
    assert stream.getvalue().splitlines()[1:] == [" 40 %  left 3:00  a, b and 1 more"]


def test_a_terminal_has_a_bar() -> None:
    stream = Terminal()
    told(Bar(stream))
    said = stream.getvalue()
    assert "warning: [red] is no colour here" in said
    assert "ppo on A, seed 0: 12.0" in said
    assert "50 %" in said


def test_what_is_shown_fits_the_stream() -> None:
    assert isinstance(make_progress(Terminal(), environment={"TERM": "xterm"}), Bar)
    assert isinstance(make_progress(Terminal(), environment={"TERM": "dumb"}), Lines)
    assert isinstance(make_progress(io.StringIO()), Lines)
    assert type(make_progress(Terminal(), quiet=True)) is Quiet
    stream = io.StringIO()
    told(Quiet(stream))
    assert stream.getvalue() == "warning: [red] is no colour here\n"


@pytest.mark.parametrize("kind", [Lines, Bar, Quiet])
def test_a_terminal_that_is_gone_stops_nothing(kind: type[Lines] | type[Bar] | type[Quiet]) -> None:
    stream = Terminal()
    shown = kind(stream)
    stream.close()
    told(shown)
