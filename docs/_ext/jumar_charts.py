"""Directives that draw the home page's and the benchmarks' pictures from the measurements and the code, when the site is built.

``speed-chart`` draws how many times as fast Jumar is as each peer, from ``benchmarks/results``; with a list of comparisons'
names those alone. ``returns-chart`` draws the returns of every algorithm in the tasks that are named. ``family-picture``
shows the methods in their lines of descent, each with what it changes, and fails when one is missing.

The pictures are HTML in the page, coloured by the theme's own variables: they suit light and dark, wide and narrow pages, and
need no script.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jumar.algorithms.registry import ALGORITHMS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from report import Spread, paired_ratio, read  # noqa: E402
from returns import TASKS, VARIANTS, results_in  # noqa: E402
from tables import summarise  # noqa: E402

PEERS = {"sb3", "rejax", "sbx"}
"""The sides that are libraries, by their names in the measurements."""


@dataclass(frozen=True)
class Row:
    """What is measured, and its value with a range for each of those who have one."""

    label: str
    values: dict[str, Spread]


def speed_rows(names: Sequence[str] = ()) -> dict[str, list[Row]]:
    """Return by peer how many times as fast Jumar is, in every comparison or in those named, on each machine.

    Raises:
        ValueError: a name that no comparison has.
    """
    found: dict[str, dict[str, dict[str, Spread]]] = {}
    known = set()
    for folder in (BENCHMARKS / "results", BENCHMARKS / "results" / "xeon"):
        report = read(folder)
        for comparison in report.comparisons:
            known.add(comparison.name)
            sides = {side.name: side for side in comparison.sides}
            if "jumar" not in sides or (names and comparison.name not in names):
                continue
            # A comparison that was measured again says where, if that was another machine.
            machine = _short(f"{comparison.measured} {report.machine['processor']}")
            own = [one.steps_per_second for one in sides["jumar"].rounds]
            for name in PEERS & sides.keys():
                ratio = paired_ratio(own, [one.steps_per_second for one in sides[name].rounds])
                if ratio is not None:
                    found.setdefault(sides[name].title, {}).setdefault(comparison.title, {})[machine] = ratio
    if unknown := set(names) - known:
        raise ValueError(f"no comparison is named {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    return {peer: [Row(title, values) for title, values in found[peer].items()] for peer in sorted(found, key=_rank)}


def _rank(peer: str) -> int:
    return ("Stable-Baselines3", "sb3-contrib", "SBX", "rejax").index(peer)


def _short(machine: str) -> str:
    return next(short for short in ("Intel Xeon", "AMD EPYC") if short.split()[1] in machine)


@cache
def returns_rows(task: str) -> list[Row]:
    """Return the interquartile mean and the interval of each algorithm in a task of the table of returns, the best first."""
    results = results_in(BENCHMARKS / "results")
    rows = []
    for side, runs in results.tasks.get(task, {}).items():
        if runs:
            s = summarise(runs)
            rows.append(Row(VARIANTS[side].title if side in VARIANTS else side, {"": Spread(s.mean, s.low, s.high)}))
    return sorted(rows, key=lambda row: -row.values[""].median)


def ticks_between(low: float, high: float, *, log: bool = False) -> list[float]:
    """Return some four to seven round numbers that span a range."""
    if log:
        steps = [m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)]
        return [t for t in steps if low <= t <= high]
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]


def chart(groups: Mapping[str, Sequence[Row]], title: str, axis: str, *, log: bool = False, one: bool = False) -> str:
    """Return HTML of ranges with a dot at their medians, in groups of rows.

    Args:
        groups: the rows under each heading; an empty heading takes no place.
        title: what a reader who cannot see the picture is told first.
        axis: the words under the axis.
        log: whether the axis is logarithmic.
        one: whether the axis holds 1 in any case, where a line stands.
    """
    rows = [row for some in groups.values() for row in some]
    spreads = [value for row in rows for value in row.values.values()]
    low = min([value.lowest for value in spreads] + [1.0] * one)
    high = max(value.highest for value in spreads)
    if log:
        low, high = low / 1.1, high * 1.1
    else:
        margin = 0.04 * (high - low or 1.0)
        low, high = low - margin, high + margin

    def place(value: float) -> float:
        """Return where a value stands, in percent of the axis."""
        return 100 * (math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low))

    owners = list(dict.fromkeys(owner for row in rows for owner in row.values))
    ticks = ticks_between(low, high, log=log)
    lines = "".join(
        f'<i class="{"one" if one and math.isclose(tick, 1.0) else "grid"}" style="left:{place(tick):.2f}%"></i>'
        for tick in ticks
    )
    parts, spoken = [], []
    if len(owners) > 1:
        names = "".join(f'<span><i class="dot c{k}"></i>{escape(owner)}</span>' for k, owner in enumerate(owners))
        parts.append(f'<div class="owners">{names}</div>')
    for heading, some in groups.items():
        if heading:
            parts.append(f'<div class="heading">{escape(heading)}</div>')
        for row in some:
            marks = []
            for owner, value in row.values.items():
                words = f"{_number(value.median)} ({_number(value.lowest)} to {_number(value.highest)})"
                words = " ".join(filter(None, (heading, row.label, owner))) + f": {words}"
                spoken.append(words)
                marks.append(_mark(value, words, place, owners.index(owner)))
            values = row.values.values()
            medians = " / ".join(_number(value.median) for value in sorted(values, key=lambda value: value.median))
            end = place(max(value.highest for value in values))
            marks.append(f'<span class="value" style="left:{end:.2f}%">{medians}</span>')
            track = f'<div class="track">{lines}{"".join(marks)}</div>'
            parts.append(f'<div class="label">{escape(row.label)}</div>{track}')
    numbers = "".join(f'<span style="left:{place(tick):.2f}%">{_number(tick)}</span>' for tick in ticks)
    parts.append(f'<div class="ticks">{numbers}</div><div class="axis">{escape(axis)}</div>')
    label = escape(f"{title}. {'; '.join(spoken)}.")
    return f'<div class="chart" role="img" aria-label="{label}">{"".join(parts)}</div>'


def _mark(value: Spread, words: str, place: Callable[[float], float], colour: int) -> str:
    low, high = place(value.lowest), place(value.highest)
    return (
        f'<i class="range c{colour}" style="left:{low:.2f}%;width:{high - low:.2f}%" title="{escape(words)}"></i>'
        f'<i class="dot c{colour}" style="left:{place(value.median):.2f}%" title="{escape(words)}"></i>'
    )


def _number(value: float) -> str:
    if value and abs(value) < 10:
        return f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}".removesuffix(".0")
    return f"{value:,.0f}"


FAMILY: dict[str, tuple[dict[str, str], ...]] = {
    "Score function": (
        {
            "reinforce": "log-probabilities, weighted by returns",
            "a2c": "advantages from a critic",
            "acer": "a replay buffer, truncated weights",
        },
        {"ispg": "reinforce on the last few rollouts, reweighted"},
    ),
    "Natural gradient": (
        {
            "restricted": "a step of given length",
            "npg": "length measured in KL: the Fisher matrix",
            "tnpg": "conjugate gradients, a few iterations",
            "trpo": "a line search that keeps the bound",
            "cpo": "a limit on costs",
        },
        {"acktr": "a2c with the Fisher matrix as Kronecker factors"},
    ),
    "First order": (
        {
            "ppo-penalty": "a price on KL that adapts",
            "ppo": "clipped ratios instead",
        },
    ),
    "Through the critic": (
        {
            "dpg": "the gradient of Q in its action",
            "ddpg": "a replay buffer, target networks",
            "td3": "twin critics, delay, smooth targets",
        },
    ),
    "Maximum entropy": (
        {
            "sql": "soft values; actions drawn from exp(Q)",
            "sac": "an actor of its own, a tuned temperature",
        },
    ),
    "Stored data": ({"bc": "the likelihood of stored actions"},),
}
"""Lines of descent: the methods of each in order, with what each changes against the one before."""


def family() -> str:
    """Return the methods in their lines of descent.

    Raises:
        ValueError: the picture and the registry differ.
    """
    shown = [name for lines in FAMILY.values() for line in lines for name in line]
    if sorted(shown) != sorted(ALGORITHMS):
        raise ValueError(f"the family's picture differs from the methods: {sorted({*shown} ^ {*ALGORITHMS})}")
    parts = []
    for title, lines in FAMILY.items():
        boxes = "".join(
            f'<li{"" if k else " class=first"}><a href="{name}.html">'
            f"<strong>{name}</strong><span>{escape(change)}</span></a></li>"
            for line in lines
            for k, (name, change) in enumerate(line.items())
        )
        parts.append(f"<div><h3>{escape(title)}</h3><ol>{boxes}</ol></div>")
    return f'<div class="family">{"".join(parts)}</div>'


class _Picture(SphinxDirective):
    """Base of the directives: HTML of one's own."""

    optional_arguments = 1
    final_argument_whitespace = True

    def html(self, words: list[str]) -> str:
        """Return the picture."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return the picture, with its data's files as what the page depends on."""
        for path in (BENCHMARKS / "results").rglob("*.json"):
            self.env.note_dependency(str(path))
        try:
            html = self.html(self.arguments[0].split() if self.arguments else [])
        except ValueError as error:
            raise self.error(str(error)) from error
        return [nodes.raw("", f'<div class="picture">{html}</div>', format="html")]


class SpeedChart(_Picture):
    """How many times as fast Jumar is as each peer."""

    def html(self, words: list[str]) -> str:
        """Return the chart, a group for each peer."""
        groups = {f"beside {peer}": rows for peer, rows in speed_rows(words).items()}
        axis = "times as fast (median and range)"
        return chart(groups, "How many times as fast Jumar is", axis, log=True, one=True)


class ReturnsChart(_Picture):
    """The returns of every algorithm in the tasks that are named."""

    def html(self, words: list[str]) -> str:
        """Return the chart of each task, one below the other."""
        groups = {task: returns_rows(task) for task in words}
        if missing := [task for task, rows in groups.items() if not rows]:
            raise ValueError(f"no returns were measured for {', '.join(missing)}")
        axis = "return: interquartile mean over seeds and 95 % interval"
        titles = {task: f"{TASKS[task].name}, {TASKS[task].total_timesteps:,} steps" for task in groups}
        return "".join(chart({titles[task]: rows}, "Returns", axis) for task, rows in groups.items())


class FamilyPicture(_Picture):
    """The methods in their lines of descent."""

    def html(self, words: list[str]) -> str:
        """Return the picture."""
        return family()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("speed-chart", SpeedChart)
    app.add_directive("returns-chart", ReturnsChart)
    app.add_directive("family-picture", FamilyPicture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
