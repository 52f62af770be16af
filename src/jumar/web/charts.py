"""The curves of a page as data: what is drawn by its script, and as pictures without it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jumar.report.statistics import mean_curve
from jumar.text import counted, printable, short_number
from jumar.web.buckets import Points
from jumar.web.titles import Title, arranged
from jumar.web.watched import WatchedRun

LINE, THIN, DOTS = "line", "thin", "dots"
"""How a curve is drawn: boldly, faintly, or with a dot for each number."""
BUDGET = 150_000
"""How many numbers all curves of a page may have together, about."""
MOST_POINTS, FEWEST_POINTS = 400, 40
MOST_CURVES = 1500
"""With more curves in the flight record than this, only the numbers to look at first are drawn."""
MOST_THIN = 8
"""With more runs than this, the flight record has no curve for each."""
BINS = 100
RESAMPLES = 1000
StepTable = dict[tuple[int, ...], int]
"""Steps that several curves share, and their numbers."""
TRAINING = "rollout/ep_rew_mean"


@dataclass(frozen=True)
class Series:
    """A curve."""

    label: str
    group: int
    """Whose colour it has, and whose switch."""
    kind: str
    points: Points
    band: bool = False
    """Whether what lies between ``low`` and ``high`` is drawn."""

    def to_json(self, table: StepTable) -> dict[str, Any]:
        """Return it as plain data; its steps are put into a table that all curves share."""
        place = table.setdefault(tuple(round(x) for x in self.points.x.tolist()), len(table))
        found: dict[str, Any] = {"label": printable(self.label), "group": self.group, "kind": self.kind, "x": place}
        names = ("mean", "low", "high") if self.band else ("mean",)
        return found | {name: [_rounded(y) for y in getattr(self.points, name).tolist()] for name in names}


@dataclass(frozen=True)
class Chart:
    """Curves over steps."""

    title: str
    words: str
    series: Sequence[Series]
    large: bool = False
    logarithmic: bool = False
    key: str = ""
    """Its name in ``metrics.jsonl``."""

    @property
    def id(self) -> str:
        """A short name that fits into HTML, whatever the title has."""
        return (
            "chart-"
            + hashlib.sha256(f"{self.key}\0{self.title}\0{self.words}".encode("utf-8", "replace")).hexdigest()[:10]
        )

    @property
    def summary(self) -> str:
        """What is to be seen, for those who do not see it."""
        parts = []
        for one in self.series:
            known = ~np.isnan(one.points.mean)
            if one.kind == THIN or not known.any():
                continue
            x, y = one.points.x[known], one.points.mean[known]
            numbers = counted(len(y), "point")
            ends = f"from {short_number(float(y.min()))} to {short_number(float(y.max()))}"
            parts.append(f"{one.label}: {short_number(float(y[-1]))} at step {x[-1]:,.0f}, {ends} over {numbers}")
        return "; ".join(parts[:8]) + ("; ..." if len(parts) > 8 else "")

    def to_json(self, table: StepTable) -> dict[str, Any]:
        """Return it as plain data."""
        series = [one.to_json(table) for one in self.series]
        return {
            "id": self.id,
            "title": printable(self.title),
            "log": self.logarithmic,
            "large": self.large,
            "series": series,
        }


class Section(NamedTuple):
    """Charts under a heading."""

    title: str
    charts: list[Chart]
    open: bool


@dataclass
class Groups:
    """The runs of each method in each task; the seeds of a group are drawn together."""

    runs: Sequence[WatchedRun]
    methods: list[str] = field(init=False)
    tasks: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.methods = list(dict.fromkeys(run.method for run in self.runs))
        self.tasks = list(dict.fromkeys(run.task for run in self.runs))

    @property
    def single(self) -> bool:
        """Whether there is one run only."""
        return len(self.runs) == 1

    @property
    def by_seed(self) -> bool:
        """Whether each run has a colour of its own: one method in one task, and few seeds."""
        return len(self.methods) == 1 and len(self.tasks) == 1 and 1 < len(self.runs) <= MOST_THIN

    @property
    def names(self) -> list[str]:
        """What has a colour: the curves of a single run, the runs of one method, or the methods."""
        if self.single:
            return ["training", "evaluation"]
        if self.by_seed:
            return ["all seeds", *(self.label(run) for run in self.runs)]
        return self.methods

    def of(self, method: str, task: str) -> list[WatchedRun]:
        """Return the runs of a method in a task."""
        return [run for run in self.runs if run.method == method and run.task == task]

    def label(self, run: WatchedRun) -> str:
        """Return what a run is called among those of its method and task."""
        same = [other for other in self.of(run.method, run.task) if other.plan.seed == run.plan.seed]
        return f"seed {run.plan.seed}" + (f" ({run.directory.path.name})" if len(same) > 1 else "")

    def colour(self, run: WatchedRun) -> int:
        """Return the number of the colour of a run's own curve."""
        return 1 + list(self.runs).index(run) if self.by_seed else self.methods.index(run.method)


def return_charts(groups: Groups, most: int) -> list[Chart]:
    """Return the curves of returns: of one run in one chart, of several runs a chart of evaluations and one of training."""
    if groups.single:
        [run] = groups.runs
        return [_returns_of(run, most)]
    charts = []
    for task in groups.tasks:
        evaluated = [
            one
            for method in groups.methods
            for one in _over_seeds(groups, groups.of(method, task), "evaluation", most, statistic=_iqm)
        ]
        trained = [
            one
            for method in groups.methods
            for one in _over_seeds(groups, groups.of(method, task), TRAINING, most, statistic=_iqm)
        ]
        words = "IQM over seeds and its 95 % bootstrap interval; faint: each run"
        if evaluated:
            charts.append(
                Chart(f"Evaluations on {task}", f"Mean return of each evaluation. {words}", evaluated, large=True)
            )
        if trained:
            large = not evaluated
            charts.append(
                Chart(
                    f"Training returns on {task}",
                    f"Mean of the last 100 episodes. {words}",
                    trained,
                    large=large,
                    key=TRAINING,
                )
            )
    return charts


def _returns_of(run: WatchedRun, most: int) -> Chart:
    series = []
    training = run.metrics.points(TRAINING, most)
    merged = run.metrics.merged_lines(TRAINING, most) > 1
    if training.known:
        series.append(Series("training", 0, LINE, training, band=merged))
    mean, std = run.evaluations.points("mean", most), run.evaluations.points("std", most).mean
    least, greatest = (run.evaluations.points(name, most).mean for name in ("least", "greatest"))
    if mean.known:
        with np.errstate(invalid="ignore"):
            low, high = np.fmax(mean.mean - std, least), np.fmin(mean.mean + std, greatest)
        series.append(Series("evaluation", 1, DOTS, mean.within(low, high), band=True))
    words = (
        "Return of an episode over environment steps. Training: mean of the last 100 episodes; evaluation: mean ± one "
    )
    words += "standard deviation, within the least and the greatest return"
    return Chart("Training and evaluation", words, series, large=True)


def _over_seeds(
    groups: Groups, runs: Sequence[WatchedRun], name: str, most: int, *, statistic: Any, thin: bool = True
) -> list[Series]:
    """Return the curve of each run, faint, and one of all of them with a band; nothing where a method has no run of a task."""
    curves = list(zip(runs, _curves(runs, name, most), strict=True))
    curves = [(run, points) for run, points in curves if points.known]
    if not curves:
        return []
    method = curves[0][0].method
    place = 0 if groups.by_seed else groups.methods.index(method)
    if len(curves) == 1:
        [(run, points)] = curves
        band = name != "evaluation" and run.metrics.merged_lines(name, most) > 1
        kind = DOTS if name == "evaluation" else LINE
        return [Series(groups.label(run) if groups.by_seed else method, groups.colour(run), kind, points, band=band)]
    series = []
    if thin:
        series = [Series(f"{method} {groups.label(run)}", groups.colour(run), THIN, points) for run, points in curves]
        if groups.by_seed:
            series = [
                Series(groups.label(run), one.group, THIN, one.points)
                for (run, _), one in zip(curves, series, strict=True)
            ]
    middle = statistic([points for _, points in curves], name == "evaluation")
    if middle is not None:
        series.append(Series("all seeds" if groups.by_seed else method, place, LINE, middle, band=True))
    return series


def _curves(runs: Sequence[WatchedRun], name: str, most: int) -> list[Points]:
    """Return the curve of each run. Points of evaluations stand for as many lines in all runs, as they are matched by order."""
    if name != "evaluation" or not runs:
        return [run.metrics.points(name, most) for run in runs]
    logs = [run.evaluations for run in runs]
    coarsest = max(log.per_bucket for log in logs)
    lines = -(-max(log.merged_lines("mean", most) for log in logs) // coarsest) * coarsest
    curves = [log.points("mean", lines=lines) for log in logs]
    if len({log.lines for log in logs}) == 1:
        return curves
    # The last point of a shorter run stands for fewer lines than that of a longer one.
    return [points.first(log.lines // lines) for points, log in zip(curves, logs, strict=True)]


def _iqm(curves: Sequence[Points], matched: bool) -> Points | None:
    """Return the IQM over runs, with its bootstrap interval; evaluations are matched by their order."""
    x, table = _by_order(curves) if matched else _on_one_grid(curves)
    known = ~np.isnan(table).any(axis=0)
    if not known.any():
        return None
    band = mean_curve(table[:, known], resamples=RESAMPLES)
    return Points(x[known], band.middle, band.low, band.high)


def _quartiles(curves: Sequence[Points], matched: bool) -> Points | None:
    """Return the median over runs, and the quartiles."""
    x, table = _on_one_grid(curves)
    known = ~np.isnan(table).all(axis=0)
    if not known.any():
        return None
    low, middle, high = np.nanquantile(table[:, known], [0.25, 0.5, 0.75], axis=0)
    return Points(x[known], middle, low, high)


def _by_order(curves: Sequence[Points]) -> tuple[np.ndarray, np.ndarray]:
    shortest = min(len(points.x) for points in curves)
    x = np.median([points.x[:shortest] for points in curves], axis=0)
    return x, np.stack([points.mean[:shortest] for points in curves])


def _on_one_grid(curves: Sequence[Points]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps, and each curve there ``[runs, steps]``; NaN where a curve does not reach."""
    known = [(points.x[ok], points.mean[ok]) for points in curves if (ok := ~np.isnan(points.mean)).any()]
    first, last = min(x[0] for x, _ in known), max(x[-1] for x, _ in known)
    grid = np.linspace(first, last, min(BINS, max(len(x) for x, _ in known)))
    return grid, np.stack([np.interp(grid, *_no_finer(x, y, len(grid)), left=np.nan, right=np.nan) for x, y in known])


def _no_finer(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve in about so many points, each the mean of its neighbours, so that none is left out between two steps."""
    group = max(1, len(x) // most)
    if group == 1:
        return x, y
    starts = np.arange(0, len(x), group)
    sizes = np.diff(np.append(starts, len(x)))
    xs, ys = (np.add.reduceat(part, starts) / sizes for part in (x, y))
    xs[0], xs[-1] = x[0], x[-1]  # it begins and ends where it did
    return xs, ys


def flight_sections(groups: Groups, most: int, *, all_numbers: bool) -> list[Section]:
    """Return the charts of the flight record: what people look at first, and the rest by subject."""
    first, others = arranged(name for run in groups.runs for name in run.metrics.names)
    sections = [
        ("Key signals", first, True),
        *((name, titles, False) for name, titles in others.items() if all_numbers),
    ]
    found = []
    for name, titles, is_open in sections:
        charts = [
            chart for title in titles for task in groups.tasks if (chart := _flight_chart(groups, title, task, most))
        ]
        if charts:
            found.append(Section(name, charts, is_open))
    return found


def _flight_chart(groups: Groups, title: Title, task: str, most: int) -> Chart | None:
    thin = len(groups.runs) <= MOST_THIN
    series = [
        one
        for method in groups.methods
        for one in _over_seeds(groups, groups.of(method, task), title.key, most, statistic=_quartiles, thin=thin)
    ]
    if groups.single:
        series = [Series(title.title, 0, one.kind, one.points, one.band) for one in series]
    if not series:
        return None
    name = title.title if len(groups.tasks) == 1 else f"{title.title} on {task}"
    positive = all(bool(np.nanmin(one.points.low if one.band else one.points.mean) > 0.0) for one in series)
    return Chart(name, title.words, series, logarithmic=title.logarithmic and positive, key=title.key)


def points_for(groups: Groups) -> tuple[int, bool]:
    """Return how many points a curve may have, and whether all numbers of the flight record are drawn."""
    names = len({name for run in groups.runs for name in run.metrics.names})
    each = len(groups.runs) if len(groups.runs) <= MOST_THIN else len(groups.methods) * len(groups.tasks)
    flight = 2 * names * each
    all_numbers = flight <= MOST_CURVES
    curves = 3 * len(groups.runs) + (flight if all_numbers else 20 * each)
    return max(FEWEST_POINTS, min(MOST_POINTS, BUDGET // max(1, curves))), all_numbers


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def merged_words(runs: Iterable[WatchedRun], most: int) -> str | None:
    """Say how many lines a point stands for, where it is more than one."""
    largest = max((run.metrics.merged_lines(TRAINING, most) for run in runs), default=1)
    if largest == 1:
        return None
    return (
        f"Long logs are drawn in buckets of up to {counted(largest, 'line')} of metrics.jsonl: the line is their mean, the "
        "band of a single run reaches from the least to the greatest."
    )
