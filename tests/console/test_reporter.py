"""What a person sees of a run, on a terminal and in a log."""

from __future__ import annotations

import io
import math
import os
import pty
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from probes import Probe, one
from rich.console import Console
from updates import ALL_LEFT, CHOICES, CONTINUOUS, ROLLOUT_METHODS, held_first, make_update

from jumar.algorithms.registry import ALGORITHMS
from jumar.collecting.programs import CompiledRunner
from jumar.console.choice import make_reporter
from jumar.console.panel import Panel, columns, sparkline
from jumar.console.reporter import (
    EPISODE_COST,
    EPISODE_LENGTH,
    SHOWN,
    Course,
    Glyphs,
    History,
    PlainLines,
    Reporter,
    Silent,
    shares_in_words,
    shown_metrics,
)
from jumar.text import clock_time, percent, percent_done, short_number

INFO = {
    "algorithm": "ppo",
    "env": "HalfCheetah-v5",
    "backend": "envpool",
    "seed": 3,
    "n_envs": 8,
    "total_timesteps": 1_000_000,
    "run_dir": "runs/ppo_x",
    "device": "cpu",
}


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def metrics(step: int, value: float = 12.5) -> dict[str, float]:
    return {
        "time/total_timesteps": step,
        "time/steps_per_second": 21_345.6,
        "rollout/ep_rew_mean": value,
        "train/approx_kl": 0.00812,
        "train/clip_fraction": 0.081,
        "train/entropy": 5.67,
        "train/explained_variance": 0.91,
        "train/learning_rate": 3e-4,
    }


def panel_text(panel: Panel, width: int = 100, height: int = 30, encoding: str = "utf-8") -> list[str]:
    """Draw the panel as plain text."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, force_terminal=False)
    console.print(panel.picture(width, height))
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]


def filled_panel(encoding: str = "utf-8") -> tuple[Panel, Clock]:
    """Return a panel, halfway through a run, that was never opened on a terminal."""
    clock = Clock()
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    panel = Panel(file, clock=clock)
    panel._course.start(INFO)
    panel.iteration(metrics(0, value=0.0))
    clock.now += 10
    panel.iteration(metrics(500_000, value=1234.5))
    panel.evaluation({"step": 400_000, "returns": [1000.0, 1100.0]})
    panel.checkpoint(400_000)
    return panel, clock


# The numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"),
        (-56.78, "-56.8"),
        (1.234, "1.23"),
        (0.00891, "0.0089"),
        (0.0003, "3.0e-04"),
        (0.0, "0"),
        (2.5e9, "2.5e+09"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_short(value: float, text: str):
    assert short_number(value) == text


def test_durations_and_shares():
    assert [clock_time(s) for s in (7, 754, 3723, None, math.inf)] == ["0:07", "12:34", "1:02:03", "-:--", "-:--"]
    assert [percent(s) for s in (0.081, 0.5, 0.0, math.nan)] == ["8.1 %", "50 %", "0.0 %", "nan"]


def test_a_run_is_at_100_percent_only_when_it_is_complete():
    assert percent_done(0.9999) == " 99 %"
    assert percent_done(1.0) == "100 %"
    assert percent_done(0.29) == " 29 %"


def test_the_first_present_key_of_a_kind_is_shown():
    rows = dict(shown_metrics({"train/approx_kl": 0.5, "train/mean_kl": 0.01, "train/actor_loss": 2.0}))
    assert rows == {"KL": "0.0100", "actor loss": "2.00"}


def test_what_is_shown_is_what_some_update_records():
    def info(observation: Any, action: Any, time: Any) -> dict[str, Any]:
        return {"cost": time.astype(jnp.float32)}

    recorded = {EPISODE_COST, EPISODE_LENGTH, "train/learning_rate"}
    for name in ALGORITHMS:
        action_space = CHOICES if name in ROLLOUT_METHODS else CONTINUOUS
        probe = Probe(one, length=3, action_space=action_space, info=info)
        update: Any = make_update(probe.observation_space, action_space, name)
        runner = CompiledRunner(update, probe, "probe", 2, 8, None)
        held, key = held_first(runner, update.init(jax.random.PRNGKey(0), 2)), jax.random.PRNGKey(0)
        begin = held.learner, update.begin(), held.collector
        learner, made, _ = jax.eval_shape(runner._round, begin, held.memory, key, ALL_LEFT[0])
        _, record, *_ = jax.eval_shape(runner._report_of, learner, made, key[None], learner)
        recorded |= {key if "/" in key else f"train/{key}" for key in record}
    assert {key for keys, _, _ in SHOWN for key in keys} <= recorded


def test_sparkline_averages_equal_groups():
    ramp = "12345678"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, ramp) == "12345678"
    assert sparkline([0, 0, 7, 7], 2, ramp) == "18"
    assert sparkline([3.0, 3.0], 10, ramp) == "55"
    assert sparkline([], 10, ramp) == ""
    assert sparkline([1.0], 0, ramp) == ""
    assert len(sparkline([float(i) for i in range(1000)], 37, ramp)) == 37


def test_history_stays_bounded_and_keeps_the_mean():
    history = History(capacity=8)
    for value in range(1024):
        history.add(float(value))
        assert len(history.values()) <= 8
    values = history.values()
    assert values == sorted(values)
    assert sum(values) / len(values) == pytest.approx(511.5)


def test_history_leaves_out_what_is_no_number():
    history = History()
    for value in (None, math.nan, math.inf, 2.0):
        history.add(value)
    assert history.values() == [2.0]


# How far a run is ----------------------------------------------------------------------------------------------------


def test_time_left_leaves_out_the_first_iteration_which_compiles():
    clock = Clock()
    course = Course(clock)
    course.start(INFO)
    clock.now += 60  # compiling
    course.advance({"time/total_timesteps": 100_000})
    assert course.seconds_left() is None
    clock.now += 10
    course.advance({"time/total_timesteps": 200_000})
    assert course.seconds_left() == pytest.approx(80.0)


def test_a_resumed_run_begins_where_it_stopped():
    course = Course(Clock())
    course.start({**INFO, "start_step": 600_000})
    assert course.share == pytest.approx(0.6)
    assert course.compiling


def test_the_best_evaluation_is_kept():
    course = Course(Clock())
    course.start(INFO)
    for step, value in ((1, 5.0), (2, 9.0), (3, 7.0), (4, math.nan), (5, 9.0)):
        course.evaluate({"step": step, "returns": [value]})
    assert course.best == (9.0, 2)  # best/ has the first of equal ones


# Plain lines ---------------------------------------------------------------------------------------------------------


def test_plain_lines_tell_the_run_from_start_to_end():
    clock, stream = Clock(), io.StringIO()
    lines = PlainLines(stream, clock)
    lines.started(INFO)
    lines.iteration(metrics(2048))
    clock.now += 10
    lines.iteration(metrics(500_000))
    lines.evaluation({"step": 500_000, "returns": [1.0, 3.0]})
    lines.note("saved")
    lines.warn("the critic sleeps")
    lines.finished({})
    lines.close()
    text = stream.getvalue().splitlines()
    assert text[0] == ("ppo on HalfCheetah-v5, envpool, 8 environments, seed 3, cpu, 1,000,000 steps -> runs/ppo_x")
    assert text[1].startswith("  0 %     2,048 steps  21,346 steps/s  left 0:47  return 12.5  KL 0.0081")
    assert text[2].startswith(" 50 %   500,000 steps  21,346 steps/s  left 0:10  return 12.5")
    assert text[3].startswith("evaluation at step 500,000: return 2.00 ")
    assert text[3].endswith("1.00 over 2 episodes")
    assert text[4:] == ["saved", "warning: the critic sleeps"]


@pytest.mark.parametrize(("steps", "share", "total"), [(99, 0.75, 132), (100, 1.0, 100), (132, 1.0, 132)])
def test_a_run_is_complete_with_enough_steps_although_a_pool_made_fewer_than_planned(steps, share, total):
    course = Course(Clock())
    course.start({**INFO, "total_timesteps": 132, "enough_timesteps": 100})
    course.advance({"time/total_timesteps": steps})
    assert (course.share, course.total) == (share, total)


def test_plain_lines_come_every_five_seconds_or_five_percent():
    clock, stream = Clock(), io.StringIO()
    lines = PlainLines(stream, clock)
    lines.started(INFO)

    def written(step: int, seconds: float) -> int:
        before = stream.getvalue().count("\n")
        clock.now += seconds
        lines.iteration(metrics(step))
        return stream.getvalue().count("\n") - before

    assert written(1_000, 0.1) == 1  # the first one, so that a log shows life
    assert written(2_000, 4.9) == 0
    assert written(3_000, 0.2) == 1
    assert written(52_999, 1.0) == 0
    assert written(53_001, 1.0) == 1


def test_a_long_run_gets_a_line_a_minute():
    clock, stream = Clock(), io.StringIO()
    lines = PlainLines(stream, clock)
    lines.started({**INFO, "total_timesteps": 10**10})
    for second in range(36_000):
        clock.now += 1
        lines.iteration(metrics(second))
    assert 600 <= stream.getvalue().count("\n") <= 700


def test_the_last_iteration_is_written_once():
    stream = io.StringIO()
    lines = PlainLines(stream, Clock())
    lines.started(INFO)
    lines.iteration(metrics(1_000_000))
    lines.finished({})
    assert stream.getvalue().count("100 %") == 1


def test_plain_lines_survive_a_closed_stream_and_a_narrow_encoding():
    closed = io.StringIO()
    closed.close()
    PlainLines(closed).note("x")
    raw = io.BytesIO()
    narrow = PlainLines(io.TextIOWrapper(raw, encoding="ascii"))
    narrow.evaluation({"step": 1, "returns": [1.0]})
    narrow.note("Zürich")
    assert raw.getvalue() == b"evaluation at step 1: return 1.00 +- 0 over 1 episode\nZ?rich\n"


# Which reporter ------------------------------------------------------------------------------------------------------


def test_the_reporter_fits_the_stream(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    capable = {"TERM": "xterm-256color"}
    assert isinstance(make_reporter(Terminal(), environment=capable), Panel)
    assert isinstance(make_reporter(io.StringIO(), environment=capable), PlainLines)
    assert isinstance(make_reporter(Terminal(), environment={"TERM": "dumb"}), PlainLines)
    assert isinstance(make_reporter(Terminal(), environment={}), PlainLines)
    assert isinstance(make_reporter(Terminal(), quiet=True, environment=capable), Silent)


def test_plain_lines_are_broken_at_the_terminal_and_whole_in_a_log(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    said = {}
    for kind in (Terminal, io.StringIO):
        stream = said[kind] = kind()
        lines = PlainLines(stream)
        lines.started(INFO)
        lines.iteration(metrics(500_000))
    narrow, log = (said[kind].getvalue().splitlines() for kind in (Terminal, io.StringIO))
    assert len(log) == 2
    assert max(map(len, narrow)) < 40
    assert " ".join(narrow).split() == " ".join(log).split()
    assert [line for line in narrow if not line.startswith("    ")] == [narrow[0], narrow[3]]


def test_a_tiny_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "24")
    assert isinstance(make_reporter(Terminal(), environment={"TERM": "xterm"}), PlainLines)


def test_quiet_still_warns():
    stream = io.StringIO()
    reporter: Reporter = Silent(stream)
    reporter.started(INFO)
    reporter.iteration(metrics(1))
    reporter.note("saved")
    reporter.warn("the critic sleeps")
    reporter.close()
    assert stream.getvalue() == "warning: the critic sleeps\n"


# The panel -----------------------------------------------------------------------------------------------------------


SHARED = {"time/environment_share": 0.623, "time/policy_share": 0.11, "time/update_share": 0.267}


def test_the_panel_says_what_the_time_goes_into():
    panel, _ = filled_panel()
    assert not any("environment 62 %" in line for line in panel_text(panel))
    panel.iteration({**metrics(600_000), **SHARED})
    for width, environment in ((57, "env"), (100, "environment")):
        words = f"time        {environment} 62 %, policy 11 %, update 27 %"
        assert any(words in line for line in panel_text(panel, width)), width
    assert shares_in_words(SHARED, 20) == shares_in_words({}, 80) == ""
    together = {"time/rollout_share": 0.73, "time/update_share": 0.27}
    assert shares_in_words(together, 80) == "environment and policy 73 %, update 27 %"


def test_the_panel_shows_everything_on_a_wide_terminal():
    panel, _ = filled_panel()
    text = "\n".join(panel_text(panel))
    for part in (
        "ppo on HalfCheetah-v5 · envpool · 8 environments · seed 3 · cpu",
        " 50 %   500,000 / 1,000,000 steps   0:10, left 0:10",
        "return      1,234     ▁█",
        "evaluation  1,050 ± 50.0 at step 400,000  ★ best so far",
        "21,346 steps/s",
        "0.0081",
        "8.1 %",
        "5.67",
        "0.9100",
        "3.0e-04",
        "400,000",
        "runs/ppo_x",
    ):
        assert part in text


@pytest.mark.parametrize("width", [32, 40, 60, 80, 110, 200])
@pytest.mark.parametrize("height", [6, 8, 12, 24, 60])
def test_the_panel_fits_every_terminal(width: int, height: int):
    panel, _ = filled_panel()
    panel._messages.append(("yellow", "a long warning " * 20))
    lines = panel_text(panel, width, height)
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)
    assert "50 %" in lines[1]
    assert lines[0].startswith("╭")
    assert lines[-1].endswith("╯")


def test_on_a_short_terminal_warnings_go_before_numbers():
    panel, _ = filled_panel()
    panel._messages.append(("yellow", "the critic sleeps"))
    text = "\n".join(panel_text(panel, 60, 8))
    assert "the critic sleeps" in text
    assert "explained variance" not in text


def test_the_panel_is_ascii_where_the_terminal_is():
    panel, _ = filled_panel("ascii")
    panel._messages.append(("yellow", "the critic sleeps"))
    text = "\n".join(panel_text(panel, encoding="ascii"))
    assert "_#" in text
    assert "1,050 +- 50.0 at step 400,000  best so far" in text
    assert "! the critic sleeps" in text


def test_an_evaluation_below_the_best_names_the_best():
    panel, _ = filled_panel()
    panel.evaluation({"step": 500_000, "returns": [900.0]})
    assert "best 1,050 at step 400,000" in "\n".join(panel_text(panel))
    panel.evaluation({"step": 600_000, "returns": [1060.0]})
    assert "1,060 ± 0 at step 600,000  ★ best so far" in "\n".join(panel_text(panel))


def test_before_the_first_iteration_it_compiles():
    clock = Clock()
    panel = Panel(io.StringIO(), clock=clock)
    panel._course.start(INFO)
    clock.now += 7
    assert "compiling 0:07" in panel_text(panel)[1]


def test_glyphs_follow_the_encoding():
    assert Glyphs.for_encoding("UTF-8").ramp == "▁▂▃▄▅▆▇█"
    for encoding in ("ascii", "latin-1", None):
        assert Glyphs.for_encoding(encoding).ramp.isascii()


def test_columns_are_filled_from_the_top_and_fit():
    cells = [("a", "1"), ("long label", "2"), ("b", "3"), ("c", "4")]
    wide = [str(line).rstrip() for line in columns(cells, 100)]
    assert wide == ["a           1    b  3", "long label  2    c  4"]
    assert [str(line) for line in columns(cells, 15)] == [
        "a           1",
        "long label  2",
        "b           3",
        "c           4",
    ]
    assert columns([], 80) == []


def test_messages_before_the_panel_opens_are_lines_of_their_own():
    stream = io.StringIO()
    panel = Panel(stream)
    panel.note("envpool has [the] id")
    panel.warn("few checkpoints")
    panel.close()
    assert stream.getvalue().splitlines()[:2] == ["envpool has [the] id", "warning: few checkpoints"]


LIVE_RUN = """
import sys
from jumar.console.choice import make_reporter
reporter = make_reporter(sys.stderr)
assert type(reporter).__name__ == "Panel", reporter
try:
    reporter.started({"algorithm": "ppo", "env": "Hill-v0", "total_timesteps": 10})
    reporter.iteration({"time/total_timesteps": 5, "rollout/ep_rew_mean": 1.0, "train/entropy": None})
    print("from the environment")
    raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
finally:
    reporter.close()
    reporter.close()
"""


def live_run(**environment: str) -> bytes:
    """Run the panel on a pseudo-terminal and return all that it wrote there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE_RUN],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", **environment},
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, written
    return written


def test_the_terminal_is_given_back_after_an_interrupt():
    written = live_run()
    assert written.rfind(b"\x1b[?25h") > written.rfind(b"\x1b[?25l") >= 0
    assert b"from the environment" in written
    assert b"50 %" in written


def test_no_color_means_no_color():
    assert b"\x1b[36m" in live_run()
    written = live_run(NO_COLOR="1")
    assert b"50 %" in written
    assert b"\x1b[36m" not in written
    assert b"\x1b[3" not in written.replace(b"\x1b[39m", b"")


def test_a_panel_whose_terminal_is_gone_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch):
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setenv("TERM", "xterm")
    panel: Any = Panel(Gone())
    panel.started(INFO)
    panel.iteration(metrics(1))
    panel.warn("x")
    panel.finished({})
    panel.close()
