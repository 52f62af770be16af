"""Where the words of a command go: to people, or to the program that asked for JSON."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any


@dataclass(frozen=True)
class Outcome:
    """What a command has to say: the same for a program and for a person."""

    data: Mapping[str, Any]
    words: str
    exit_code: int = 0
    """1 where a part of what was asked for failed, and the rest is told all the same."""
    kept: bool = False
    """Whether everything is in a folder, so that the words are not what was asked for."""
    then: Callable[[], None] | None = None
    """What goes on after the words are printed, until it is stopped."""


@contextlib.contextmanager
def reserved_output(json_wanted: bool) -> Iterator[IO[str]]:
    """Yield standard output; with JSON, nothing else writes there within the block: it goes to standard error.

    That includes libraries that write to the file descriptor itself, and child processes.
    """
    if not json_wanted:
        yield sys.stdout
        return
    with contextlib.ExitStack() as stack:
        output: IO[str] = sys.stdout
        output.flush()
        if _descriptor(sys.stdout) == 1 and _descriptor(sys.stderr) == 2:
            saved = os.dup(1)
            reserved = stack.enter_context(open(saved, "w", encoding="utf-8"))
            output = output if getattr(output, "failure", None) else reserved  # closed from the beginning: it says so
            os.dup2(2, 1)
            stack.callback(os.dup2, saved, 1)
            stack.callback(_flush_c_streams)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield output


def _flush_c_streams() -> None:
    """Write out what C code has printed, while it still goes to standard error."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (io.UnsupportedOperation, ValueError, AttributeError):
        return None


def json_line(data: Mapping[str, Any]) -> str:
    """Return one JSON object on one line; numbers that JSON does not have (NaN, infinity) become null."""
    return json.dumps(_plain(data), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


ENDLESS = (
    "If episodes have no end, give the environment a time limit: register it with max_episode_steps, or add --wrapper "
    "TimeLimit:max_episode_steps=200, say"
)


def run_words(summary: Mapping[str, Any]) -> str:
    """Say what a run reached, where it is saved, and what to type next."""
    runs = summary.get("runs")
    if runs:
        each = [_reached({**summary, **one}, saved=False) for one in runs]
        return "\n".join(
            [*each, f"Everything is saved in {summary['run_dir']}", "", _next_words(summary, runs[0]["run_dir"])]
        )
    return "\n".join([_reached(summary), "", _next_words(summary, summary.get("run_dir", "RUN"))])


def _reached(summary: Mapping[str, Any], saved: bool = True) -> str:
    from jumar.text import clock_time, counted, short_number

    evaluated, trained = summary.get("last_eval_mean"), summary.get("ep_rew_mean")
    cut = summary.get("last_eval_cut_episodes")
    if evaluated is not None and cut:
        result = (
            f"had a mean return of {short_number(evaluated)} in its last evaluation, of which "
            f"{counted(cut, 'episode')} had not ended and {'was' if cut == 1 else 'were'} cut"
        )
    elif evaluated is not None:
        result = f"reached a mean return of {short_number(evaluated)} in its last evaluation"
    elif trained is not None:
        result = f"reached a mean return of {short_number(trained)} in training"
    else:
        result = "ended no episode, so there is no return to report"
    words = (
        f"{summary.get('algorithm', 'the run')} on {summary.get('env', '?')}, seed {summary.get('seed', 0)}: {result}"
    )
    if "total_timesteps" in summary:
        words += f", after {summary['total_timesteps']:,} steps"
    if "wall_time_s" in summary:
        words += f" in {clock_time(summary['wall_time_s'])}"
    if summary.get("steps_per_second"):
        words += f" ({summary['steps_per_second']:,.0f} steps/s)"
    if (rule := summary.get("stopped_by")) is not None:
        words += f"; {rule} stopped it"
    if evaluated is None and trained is None and saved:
        words += f". {ENDLESS}"
    return f"{words}." + (f"\nEverything is saved in {summary.get('run_dir', '?')}" if saved else "")


def _next_words(summary: Mapping[str, Any], evaluated: Any) -> str:
    from jumar.text import repeat_words

    run = shlex.quote(str(summary.get("run_dir", "RUN")))
    again = repeat_words(summary.get("repeat_env"), summary.get("repeat_wrappers") or (), summary.get("repeat_encoder"))
    in_one = " --env ENV" if summary.get("backend") == "data" else ""  # it learnt without an environment
    done = int(summary.get("total_timesteps") or 500_000)
    # What a rule has stopped goes on to its own total; a run that has reached it, for as long again.
    planned = int(summary.get("planned_timesteps") or 0)
    total = planned if summary.get("stopped_by") and planned > done else 2 * done
    return "\n".join(
        [
            "What to type next:",
            f"  jumar evaluate {shlex.quote(str(evaluated))}{again}{in_one}",
            f"  jumar report {run}",
            *([f"  jumar record {shlex.quote(str(evaluated))}{again}{in_one}"] if _can_encode() else []),
            f"  jumar resume {run}{again} --total-timesteps {total}",
        ]
    )


def _can_encode() -> bool:
    """Whether there is what makes films."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None or shutil.which("ffmpeg") is not None
