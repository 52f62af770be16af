"""The memory that a process takes over time, and how fast it grows."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MIB = 2**20
OWN = ("RssAnon:", "RssShmem:")
"""The memory of a process but for what is mapped from files, which the system takes away and brings back as it likes."""


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        seconds: since the process began.
        steps: environment steps so far.
        resident: bytes of memory of the process and of those that it started.
    """

    seconds: float
    steps: int
    resident: int


def resident_bytes(process: int) -> int:
    """Return the memory of a process and of all that it has started, in bytes; 0 where there is none.

    What is mapped from files does not count. Needs Linux's ``/proc``.
    """
    total = 0
    for each in [process, *_children(process)]:
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(OWN))
    return total


def _children(process: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            direct = [int(word) for word in path.read_text().split()]
        except OSError:
            continue
        found += [*direct, *(inner for each in direct for inner in _children(each))]
    return found


def watch(process: int, steps: Callable[[], int], under_way: Callable[[], bool], every: float = 1.0) -> list[Sample]:
    """Look at a process again and again until it ends; return what was seen.

    Args:
        process: its number.
        steps: tells how far it is.
        under_way: whether it has not ended.
        every: seconds between two looks.
    """
    began, seen = time.monotonic(), list[Sample]()
    while under_way():
        if resident := resident_bytes(process):
            seen.append(Sample(time.monotonic() - began, steps(), resident))
        time.sleep(every)
    return seen


def growth(samples: Sequence[Sample]) -> float:
    """Return how many bytes the memory grows over the second half of the steps: a straight line fitted by least squares.

    What comes after the last step, such as drawing a picture, does not count.

    Raises:
        ValueError: there are fewer than ten samples in that half.
    """
    last = max((each.steps for each in samples), default=0)
    half = [each for each in samples if last / 2 <= each.steps < last]
    if len(half) < 10:
        raise ValueError(f"{len(half)} samples of the second half are too few; take more steps")
    at = np.array([each.seconds for each in half])
    slope = np.polyfit(at - at.mean(), np.array([each.resident for each in half], np.float64), 1)[0]
    return float(slope * (at[-1] - at[0]))


def as_csv(samples: Sequence[Sample]) -> str:
    """Return samples as a table."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["seconds", "steps", "resident_bytes"])
    rows.writerows([f"{each.seconds:.1f}", each.steps, each.resident] for each in samples)
    return text.getvalue()


def as_svg(curves: dict[str, Sequence[Sample]]) -> bytes:
    """Return the memory over the share of steps that are done, a curve for each run, as a picture."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, samples in curves.items():
        most = max((each.steps for each in samples), default=0) or 1
        axes.plot([each.steps / most for each in samples], [each.resident / MIB for each in samples], label=name)
    axes.set_xlabel("share of the steps")
    axes.set_ylabel("resident memory [MiB]")
    axes.set_ylim(bottom=0.0)
    axes.legend(frameon=False)
    text = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return text.getvalue()
