"""The live panel: what a run does, redrawn in place on a terminal."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel as Frame
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jumar.console.reporter import (
    RETURN,
    SPEED,
    Clock,
    Course,
    Glyphs,
    mean_and_deviation,
    shares_in_words,
    shown_metrics,
)
from jumar.text import clock_time, percent_done, printable, short_number


class Panel:
    """One panel on a terminal, redrawn in place.

    The calling thread only notes what is new; a thread of its own draws, so that the clock goes on in a long iteration
    too. Drawing pauses for a hundred times as long as it takes, and never goes above four times a second: it costs the
    run less than 1 %.
    """

    FASTEST = 0.25
    IDLE = 100.0
    SMALLEST = (60, 6)
    MESSAGES = 4

    def __init__(self, stream: IO[str], console: Console | None = None, clock: Clock = time.monotonic) -> None:
        self._console = console or _Terminal(file=stream, highlight=False)
        self._course = Course(clock)
        self._glyphs = Glyphs.for_encoding(self._console.encoding)
        self._messages: deque[tuple[str, str]] = deque(maxlen=self.MESSAGES)
        self._live = Live(
            _Drawing(self), console=self._console, auto_refresh=False, transient=False, vertical_overflow="crop"
        )
        self._lock = threading.Lock()  # what is drawn must not change meanwhile
        self._ended = threading.Event()
        self._drawer = threading.Thread(target=self._keep_drawing, name="jumar-panel", daemon=True)

    def fits(self) -> bool:
        """Whether the terminal is large enough for a panel at all."""
        width, height = self._console.size
        return width >= self.SMALLEST[0] and height >= self.SMALLEST[1]

    def started(self, info: Mapping[str, Any]) -> None:
        """Open the panel."""
        self._course.start(info)
        with suppress(Exception):
            self._live.start(refresh=True)
        if not self._drawer.is_alive() and not self._ended.is_set():
            self._drawer.start()

    def iteration(self, metrics: Mapping[str, float]) -> None:
        """Take in the numbers for the next redraw."""
        with self._lock:
            self._course.advance(metrics)

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Take in the evaluation for the next redraw."""
        with self._lock:
            self._course.evaluate(record)

    def checkpoint(self, step: int) -> None:
        """Take in the step for the next redraw."""
        self._course.checkpoint = step

    def note(self, text: str) -> None:
        """Show the note among the last few messages, or on a line of its own before the panel opens."""
        self._message("dim", text)

    def warn(self, text: str) -> None:
        """Show the warning among the last few messages; one that is still there is not repeated."""
        if ("yellow", " ".join(printable(text).split())) not in self._messages:
            self._message("yellow", text)

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Leave the panel in its last state."""
        self._course.complete = True
        self.close()

    def close(self) -> None:
        """Draw a last time and give the terminal back."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._drawer.is_alive() and self._drawer is not threading.current_thread():
            self._drawer.join()
        with suppress(Exception):
            self._live.stop()

    def _message(self, style: str, text: str) -> None:
        text = printable(text)
        if self._live.is_started:
            with self._lock:
                self._messages.append((style, " ".join(text.split())))
        else:
            with suppress(Exception):
                prefix = "warning: " if style == "yellow" else ""
                self._console.print(prefix + text, style=style, markup=False)

    def _keep_drawing(self) -> None:
        pause = self.FASTEST
        while not self._ended.wait(pause):
            began = time.thread_time()
            with suppress(Exception):  # a run must not end because its picture could not be drawn
                self._live.refresh()
            pause = max(self.FASTEST, self.IDLE * (time.thread_time() - began))

    def picture(self, width: int, height: int) -> RenderableType:
        """Return what to draw in a terminal of this size, in characters.

        Where it is too short, the numbers are left out first, then the oldest messages.
        """
        inner = width - 4
        with self._lock:
            details, messages = self._details(inner)
            head = [self._bar(inner), *self._results(inner)]
        room = height - 3 - len(head)  # the frame, and the line that the cursor stands on
        messages = messages[-max(room, 0) :] if room > 0 else []
        details = details[: max(room - len(messages), 0)]
        lines = [*head[: max(height - 3, 1)], *details, *messages]
        if room - len(details) - len(messages) >= 3:  # air between the blocks
            blocks = [block for block in ([head[0]], head[1:], details, messages) if block]
            lines = [line for block in blocks for line in (Text(""), *block)][1:]
        where = str(self._course.info.get("run_dir") or "")
        return Frame(
            Group(*lines),
            title=self._title(inner),
            title_align="left",
            subtitle=Text(where, style="dim") if 0 < len(where) <= inner - 4 else None,
            subtitle_align="right",
            border_style="green" if self._course.complete else "cyan",
            width=width,
        )

    def _title(self, width: int) -> Text:
        title = Text(" ").append(self._course.title(), style="bold")
        for word in self._course.circumstances():
            if len(title) + len(self._glyphs.separator) + len(word) > width - 4:
                break
            title.append(self._glyphs.separator + word, style="dim")
        return title.append(" ")

    def _bar(self, width: int) -> RenderableType:
        course = self._course
        if course.complete:
            timing = f"took {clock_time(course.elapsed)}"
        elif course.compiling:
            timing = f"compiling {clock_time(course.elapsed)}"
        else:
            timing = f"left {clock_time(course.seconds_left())}"
            timing = f"{clock_time(course.elapsed)}, {timing}" if width >= 36 else timing
        words = Text(f"{percent_done(course.share)}", style="bold", no_wrap=True)
        if width >= 70:
            words.append(f"   {course.steps:,} / {course.total:,} steps", style="default")
        words.append(f"   {timing}", style="cyan")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(
            ProgressBar(
                total=max(course.total, 1),
                completed=course.steps,
                width=max(width - len(words) - 2, 5),
                complete_style="green",
                finished_style="green",
            ),
            words,
        )
        return grid

    def _results(self, width: int) -> list[RenderableType]:
        """The return with its course, the last evaluation, and what the time goes into."""
        course, glyphs, lines = self._course, self._glyphs, []
        if RETURN in course.metrics:
            line = Text("return      ", style="dim").append(
                f"{short_number(course.metrics[RETURN]):<10}", style="bold green"
            )
            line.append(sparkline(course.returns.values(), min(width - len(line), 60), glyphs.ramp), style="green")
            lines.append(line)
        if course.evaluation is not None:
            line = Text("evaluation  ", style="dim").append(self._evaluation(course.evaluation, width - 12))
            lines.append(line)
        if shares := shares_in_words(course.metrics, width - 12):
            lines.append(Text("time        ", style="dim").append(shares, style="default"))
        return lines

    def _evaluation(self, record: Mapping[str, Any], width: int) -> Text:
        glyphs, best = self._glyphs, self._course.best
        mean, deviation = mean_and_deviation(record)
        line = Text(short_number(mean), style="bold")
        extras = [f" {glyphs.plus_minus} {short_number(deviation)}"] if math.isfinite(deviation) else []
        extras += [f" at step {int(record['step']):,}"] if "step" in record else []
        if best is not None:
            here = best[1] == int(record.get("step", self._course.steps))
            extras.append(f"  {glyphs.best}" if here else f"  best {short_number(best[0])} at step {best[1]:,}")
        for extra in extras:
            if len(line) + len(extra) <= width:
                line.append(extra, style="default not bold")
        return line

    def _details(self, width: int) -> tuple[list[RenderableType], list[RenderableType]]:
        """The metrics in columns, the last checkpoint, and the last messages."""
        course = self._course
        cells = [("speed", f"{course.metrics[SPEED]:,.0f} steps/s")] if SPEED in course.metrics else []
        cells += shown_metrics(course.metrics)
        if course.checkpoint is not None:
            cells.append(("last checkpoint", f"{course.checkpoint:,}"))
        messages: list[RenderableType] = [self._message_line(style, text, width) for style, text in self._messages]
        return columns(cells, width), messages

    def _message_line(self, style: str, text: str, width: int) -> Text:
        line = Text(f"{self._glyphs.warning} {text}" if style == "yellow" else text, style=style, no_wrap=True)
        line.truncate(width, overflow="crop" if self._console.options.ascii_only else "ellipsis")
        return line


def sparkline(values: Sequence[float], width: int, ramp: str) -> str:
    """Draw values as one line of at most ``width`` characters, the lowest as the first of ``ramp``.

    More values than characters are averaged in equal groups; equal values are drawn half high.
    """
    if not values or width < 1:
        return ""
    groups = min(len(values), width)
    edges = [round(i * len(values) / groups) for i in range(groups + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    if span <= 0.0:
        return ramp[len(ramp) // 2] * len(means)
    return "".join(ramp[min(int((mean - low) / span * len(ramp)), len(ramp) - 1)] for mean in means)


def columns(cells: Sequence[tuple[str, str]], width: int) -> list[RenderableType]:
    """Lay labels and values out in as many columns as fit (at most three), filled from the top of the left one."""
    gap = 4
    for number in (3, 2, 1):
        height = -(-len(cells) // number)
        groups = [cells[first : first + height] for first in range(0, len(cells), height or 1)]
        sizes = [(max(len(label) for label, _ in group), max(len(value) for _, value in group)) for group in groups]
        if sum(label + 2 + value for label, value in sizes) + gap * (len(sizes) - 1) <= width:
            break
    lines: list[RenderableType] = []
    for row in range(height):
        line = Text(no_wrap=True, overflow="crop")
        for group, (label_width, value_width) in zip(groups, sizes, strict=True):
            if row < len(group):
                label, value = group[row]
                line.append(" " * gap if len(line) else "")
                line.append(f"{label:<{label_width}}  ", style="dim").append(f"{value:>{value_width}}")
        lines.append(line)
    return lines


class _Terminal(Console):
    """A console that falls silent when nobody reads it any more; rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Write nothing from now on."""
        self.quiet = True


class _Drawing:
    """Draws a panel for whatever size the terminal has at that moment."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = console.size
        yield self._panel.picture(min(width - 3, 110), height)  # room for the ^C that the terminal echoes
