"""What a person sees of a comparison: a bar on a terminal, lines in a log, or only warnings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Protocol

from jumar.console.reporter import write_line
from jumar.console.terminal import can_draw
from jumar.text import clock_time, counted, percent_done, printable

PAUSE = 60.0
"""Seconds between two lines about the progress in a log."""


class Progress(Protocol):
    """Who is told how a comparison goes."""

    def began(self, total_steps: int, runs: int, done_steps: int) -> None:
        """So many environment steps and runs are to be done, of which some are done already."""
        ...

    def moved(self, steps: int, running: Sequence[str]) -> None:
        """So many steps are done; these runs are under way."""
        ...

    def ended(self, text: str) -> None:
        """A run has ended; said in words."""
        ...

    def note(self, text: str) -> None:
        """Something worth one line."""
        ...

    def warn(self, text: str) -> None:
        """Something is off; said in words."""
        ...

    def close(self) -> None:
        """Give the terminal back."""
        ...


class Quiet:
    """Shows nothing but warnings."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream

    def began(self, total_steps: int, runs: int, done_steps: int) -> None:
        """Show nothing."""

    def moved(self, steps: int, running: Sequence[str]) -> None:
        """Show nothing."""

    def ended(self, text: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Write the warning."""
        if self._stream is not None:
            write_line(self._stream, f"warning: {text}")

    def close(self) -> None:
        """Do nothing."""


class _Pace:
    """How far the work is, and how long it will take."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        self._first, self._began = done, time.monotonic()

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 1.0

    @property
    def seconds_left(self) -> float | None:
        taken = self.done - self._first
        return (self.total - self.done) * (time.monotonic() - self._began) / taken if taken > 0 else None


class Lines(Quiet):
    """A line for each run that ends, and one a minute."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self._lines = stream
        self._pace = _Pace(0, 0)
        self._said = time.monotonic()

    def began(self, total_steps: int, runs: int, done_steps: int) -> None:
        """Say what is to be done."""
        self._pace = _Pace(total_steps, done_steps)
        before = f", {percent_done(self._pace.share).strip()} of the steps done before" if done_steps else ""
        write_line(self._lines, f"{counted(runs, 'run')} to train, {total_steps:,} steps in all{before}")

    def moved(self, steps: int, running: Sequence[str]) -> None:
        """Write a line if it is time for one."""
        self._pace.done = steps
        if time.monotonic() - self._said >= PAUSE:
            self._said = time.monotonic()
            write_line(self._lines, _progress_words(self._pace, running))

    def ended(self, text: str) -> None:
        """Write it."""
        write_line(self._lines, f"{percent_done(self._pace.share)}  {text}")

    def note(self, text: str) -> None:
        """Write it."""
        write_line(self._lines, text)


class Bar(Quiet):
    """One bar on a terminal, redrawn in place; what has ended scrolls away above it."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        super().__init__(stream)
        self._console = Console(file=stream, highlight=False)
        self._bars = Bars(
            BarColumn(), TextColumn("{task.description}", markup=False), console=self._console, auto_refresh=True
        )
        self._task: Any = None
        self._pace = _Pace(0, 0)

    def began(self, total_steps: int, runs: int, done_steps: int) -> None:
        """Draw the bar."""
        self._pace = _Pace(total_steps, done_steps)
        with suppress(OSError, ValueError):  # the terminal may be gone
            self._bars.start()
            self._task = self._bars.add_task("", total=total_steps or 1, completed=done_steps)

    def moved(self, steps: int, running: Sequence[str]) -> None:
        """Move the bar."""
        self._pace.done = steps
        if self._task is None:
            return
        with suppress(OSError, ValueError):
            self._bars.update(self._task, completed=steps, description=_progress_words(self._pace, running))

    def ended(self, text: str) -> None:
        """Write it above the bar."""
        self._print(text)

    def note(self, text: str) -> None:
        """Write it above the bar."""
        self._print(text)

    def warn(self, text: str) -> None:
        """Write it above the bar."""
        self._print(f"warning: {text}")

    def close(self) -> None:
        """Take the bar away."""
        with suppress(OSError, ValueError):
            self._bars.stop()

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._console.print(printable(text), markup=False, soft_wrap=True)


def _progress_words(pace: _Pace, running: Sequence[str]) -> str:
    now = ", ".join(running[:2]) + (f" and {len(running) - 2} more" if len(running) > 2 else "")
    return f"{percent_done(pace.share)}  left {clock_time(pace.seconds_left)}  {now}"


def make_progress(stream: IO[str], *, quiet: bool = False, environment: Mapping[str, str] | None = None) -> Progress:
    """Choose what fits the stream: a bar on a capable terminal, else lines; only warnings if quiet."""
    if quiet:
        return Quiet(stream)
    return Bar(stream) if can_draw(stream, environment) else Lines(stream)
