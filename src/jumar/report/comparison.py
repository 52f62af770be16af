r"""Methods compared on tasks over seeds: from runs to tables of numbers.

A run's *score* is the mean return of its last evaluations: those since the first of the last :math:`L` was due,

.. math:: \frac{1}{|E|} \sum_{e \in E} R_e, \qquad E = \{e : s_e \ge (\lceil T / \Delta \rceil - L + 1)\,\Delta\},

with :math:`s_e` the step of evaluation :math:`e` and :math:`R_e` its mean return, :math:`T` the steps of the run and
:math:`\Delta` those between evaluations. Where iterations are longer than :math:`\Delta`, :math:`E` has fewer than :math:`L`,
and begins where it does for all methods that are told the same :math:`T` and :math:`\Delta`; where it has none, the last
evaluation counts. What is over several tasks is made of normalised scores,

.. math:: \frac{x - l_m}{h_m - l_m},

with :math:`l_m` and :math:`h_m` of task :math:`m` as given, or else the lowest and the highest score of any run there; a task
where these are equal says nothing, and is left out. A single run has no interval.
Every table is a list of flat records, the same for CSV, JSON and pictures. Statistics: :mod:`jumar.report.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from typing import Any

import numpy as np

from jumar.report.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean_curve,
    performance_profile,
    probability_of_improvement,
)

Table = list[dict[str, Any]]
"""Records with the same keys."""
Scale = tuple[float, float]
"""The returns that normalised scores of 0 and 1 stand for."""

THRESHOLDS = 101
"""How many thresholds a performance profile has."""
BINS = 100
"""In how many stretches of training diagnostics are averaged."""
STEPS = "time/total_timesteps"
KL = "train/mean_kl"
COST = "rollout/ep_cost_mean"
ENDED = "rollout/episodes"
ENDED_COST = "rollout/episode_cost"
DIAGNOSTICS = {
    KL: "mean KL",
    "train/entropy": "entropy",
    "train/explained_variance": "explained variance",
    "train/clip_fraction": "ratios clipped",
    "train/step_fraction": "share of the step taken",
    "train/cg_residual": "residual of conjugate gradients",
    "train/kl_coef": "penalty coefficient",
    COST: "episode cost",
}
"""What of the flight record is compared, and what it is called."""


@dataclass(frozen=True)
class Protocol:
    """How long a run was to be, and how it was to be evaluated."""

    total_timesteps: int
    eval_every: int
    """Environment steps between evaluations."""
    eval_episodes: int

    def counted_from(self, last: int, ended: int | None = None) -> int:
        """Return the step at which the first of the last so many evaluations was due, in a run that ended at a step."""
        steps = self.total_timesteps if ended is None else ended
        return max(0, (math.ceil(steps / self.eval_every) - last + 1) * self.eval_every)


@dataclass(frozen=True)
class Run:
    """One training run, read back."""

    method: str
    env: str
    seed: int
    steps: np.ndarray
    """Environment steps at each evaluation, ``[evaluations]``."""
    returns: np.ndarray
    """The mean return of each, ``[evaluations]``."""
    record: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The flight record, by name ``[iterations]``; NaN where an iteration says nothing."""
    failure: str | None = None
    """Why it does not count, if it failed."""
    path: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    """Its algorithm, and the settings that are not the algorithm's defaults."""
    protocol: Protocol | None = None
    """``None`` where it is not known."""
    ended: int | None = None
    """The step at which a rule ended it before its total, if one did."""
    waiting: bool = False
    """Whether it is not trained yet."""

    @property
    def counts(self) -> bool:
        """Whether it has a score."""
        return self.failure is None and not self.waiting

    def score(self, last: int) -> float:
        """Return the mean return over the last so many evaluations."""
        if self.protocol is None:
            return float(np.mean(self.returns[-last:]))
        late = self.returns[self.steps >= self.protocol.counted_from(last, self.ended)]
        return float(np.mean(late if late.size else self.returns[-1:]))

    def cost(self, share: float) -> float | None:
        """Return the mean cost of the episodes that ended in the last share of training; ``None`` where none has one."""
        costs = self._late(ENDED_COST, share)
        known = ~np.isnan(costs)
        return float(np.average(costs[known], weights=self._late(ENDED, share)[known])) if known.any() else None

    def late(self, name: str, share: float) -> np.ndarray:
        """Return what the flight record says in the last share of training, NaN left out."""
        values = self._late(name, share)
        return values[~np.isnan(values)]

    def _late(self, name: str, share: float) -> np.ndarray:
        values, steps = self.record.get(name, np.zeros(0)), self.record.get(STEPS, np.zeros(0))
        return values[steps > steps[-1] - share * steps[-1]] if values.size else values


@dataclass(frozen=True)
class Comparison:
    """All tables of a comparison; make one with :func:`compare_runs`."""

    runs: Table
    """Each run: its score, or why it failed."""
    scores: Table
    """Each method in each task."""
    overall: Table
    """Each method over all tasks, where it has scores in all of them."""
    profiles: Table
    """The share of a method's runs whose score is above a threshold."""
    improvement: Table
    """How likely one method scores higher than another, over the tasks that both have."""
    curves: Table
    """Learning curves."""
    diagnostics: Table
    """The flight record over training: median and quartiles over runs."""
    about: dict[str, Any]
    """How it was made: methods, tasks, scales, tasks that have none because all scores are equal, evaluations in a score, what
    the runs of each method were told, and what was left out."""

    @property
    def tables(self) -> dict[str, Table]:
        """The tables by name."""
        names = ("runs", "scores", "overall", "profiles", "improvement", "curves", "diagnostics")
        return {name: getattr(self, name) for name in names}

    @property
    def normalised(self) -> bool:
        """Whether what is over tasks is made of normalised scores, rather than of the returns of the only task."""
        return bool(self.about["scales"])


def compare_runs(
    runs: Sequence[Run],
    *,
    last: int = 10,
    scales: Mapping[str, Scale] | None = None,
    left_out: Sequence[str] = (),
) -> Comparison:
    """Compare runs; methods and tasks come in the order in which the runs name them.

    Args:
        runs: those that failed too; they are listed, and count in nothing else.
        last: how many evaluations make a score.
        scales: by task, the returns that normalised scores of 0 and 1 stand for. Tasks that are not named take the lowest and
            the highest score of any run. With one task, and no scale for it, nothing is normalised.
        left_out: which other runs were found and do not count, in words.

    Raises:
        ValueError: a scale does not go up.
    """
    if wrong := next((env for env, (low, high) in (scales or {}).items() if not low < high), None):
        raise ValueError(f"the scale of {wrong} does not go up.")
    methods, envs = list(dict.fromkeys(run.method for run in runs)), list(dict.fromkeys(run.env for run in runs))
    found = _Scored([run for run in runs if run.counts], methods, envs, last)
    used = found.scales(scales or {})
    equal = [env for env in found.scored() if env not in used] if len(found.scored()) > 1 else []
    return Comparison(
        runs=[_about_run(run, last) for run in runs],
        scores=[
            row for env in envs for method in methods if (row := _score_row(runs, found, method, env, last)) is not None
        ],
        overall=_overall(found, used),
        profiles=_profiles(found, used),
        improvement=_improvement(found),
        curves=[row for env in envs for method in methods for row in _curve(found.runs(method, env), method, env)],
        diagnostics=[
            row for env in envs for method in methods for row in _flight(found.runs(method, env), method, env)
        ],
        about={
            "methods": methods,
            "envs": envs,
            "last": last,
            "scales": {env: list(scale) for env, scale in used.items()},
            "equal": equal,
            "told": _told(runs),
            "left_out": list(left_out),
        },
    )


class _Scored:
    """The runs that count, by method and task."""

    def __init__(self, runs: Sequence[Run], methods: list[str], envs: list[str], last: int) -> None:
        self.methods, self.envs, self._last = methods, envs, last
        self._runs: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            self._runs.setdefault((run.method, run.env), []).append(run)

    def runs(self, method: str, env: str) -> list[Run]:
        return self._runs.get((method, env), [])

    def scores(self, method: str, env: str) -> np.ndarray:
        return np.array([run.score(self._last) for run in self.runs(method, env)])

    def scored_envs(self, *methods: str) -> list[str]:
        """Return the tasks in which all of these methods have scores."""
        return [env for env in self.envs if all(self.runs(method, env) for method in methods)]

    def scales(self, given: Mapping[str, Scale]) -> dict[str, Scale]:
        """Return the scale of each task whose scores differ or which has one; none where one task has none given."""
        envs = self.scored()
        if len(envs) < 2 and not any(env in given for env in envs):
            return {}
        found = {env: given.get(env, self._range(env)) for env in envs}
        return {env: (low, high) for env, (low, high) in found.items() if low < high}

    def scored(self) -> list[str]:
        """Return the tasks in which any method has a score."""
        return [env for env in self.envs if any(self.runs(method, env) for method in self.methods)]

    def _range(self, env: str) -> Scale:
        every = np.concatenate([self.scores(method, env) for method in self.methods])
        return float(every.min()), float(every.max())

    def normalised(self, method: str, scales: Mapping[str, Scale]) -> list[np.ndarray]:
        """Return the scores of a method, task by task, normalised where there are scales."""
        groups = []
        for env in self._counted(scales):
            low, high = scales.get(env, (0.0, 1.0))
            groups.append((self.scores(method, env) - low) / (high - low))
        return groups

    def complete(self, scales: Mapping[str, Scale]) -> list[str]:
        """Return the methods that have scores in all tasks that count."""
        counted = self._counted(scales)
        return [method for method in self.methods if counted and set(counted) <= set(self.scored_envs(method))]

    def _counted(self, scales: Mapping[str, Scale]) -> list[str]:
        """Return the tasks with scores, where there are several those with a scale."""
        envs = self.scored()
        return [env for env in envs if env in scales] if len(envs) > 1 else envs


def _about_run(run: Run, last: int) -> dict[str, Any]:
    elapsed, steps = run.record.get("time/elapsed", np.zeros(0)), run.record.get(STEPS, np.zeros(0))
    return {
        "method": run.method,
        "env": run.env,
        "seed": run.seed,
        "status": "failed" if run.failure is not None else "waiting" if run.waiting else "done",
        "score": run.score(last) if run.counts else None,
        "last_eval_mean": float(run.returns[-1]) if run.returns.size else None,
        "total_timesteps": int(steps[-1]) if steps.size else None,
        "minutes": float(elapsed[-1]) / 60.0 if elapsed.size else None,
        "failure": run.failure,
        "path": run.path,
    }


def _score_row(runs: Sequence[Run], found: _Scored, method: str, env: str, last: int) -> dict[str, Any] | None:
    asked = [run for run in runs if run.method == method and run.env == env]
    if not asked:
        return None
    counted, scores = found.runs(method, env), found.scores(method, env)
    row: dict[str, Any] = {"method": method, "env": env, "runs": len(counted)}
    row |= {"failed": sum(run.failure is not None for run in asked), "waiting": sum(run.waiting for run in asked)}
    if not counted:
        numbers = ("iqm", "low", "high", "mean", "std", "median", "lowest", "highest", "cost", "cost_error", "mean_kl")
        return {**row, **dict.fromkeys(numbers)}
    costs = [cost for run in counted if (cost := run.cost(0.2)) is not None]
    divergences = [float(np.median(late)) for run in counted if (late := run.late(KL, 0.9)).size]
    return {
        **row,
        "iqm": interquartile_mean(scores),
        **_ends([scores], *bootstrap_interval(scores)),
        "mean": float(scores.mean()),
        "std": float(scores.std(ddof=1)) if len(scores) > 1 else None,
        "median": float(np.median(scores)),
        "lowest": float(scores.min()),
        "highest": float(scores.max()),
        "cost": float(np.mean(costs)) if costs else None,
        "cost_error": float(np.std(costs, ddof=1) / np.sqrt(len(costs))) if len(costs) > 1 else None,
        "mean_kl": float(np.median(divergences)) if divergences else None,
    }


def _ends(groups: Sequence[Any], low: float, high: float) -> dict[str, float | None]:
    """Return the ends of an interval; ``None`` where no task has a second run: drawn again, one run is the same."""
    known = any(len(runs) > 1 for runs in groups)
    return {"low": float(low) if known else None, "high": float(high) if known else None}


def _told(runs: Sequence[Run]) -> Table:
    """Return what the runs of each method and task were told, those that were told the same together."""
    found: Table = []
    for run in runs:
        protocol = asdict(run.protocol) if run.protocol else None
        row = {"method": run.method, "env": run.env, "told": dict(run.told), "protocol": protocol}
        if row not in found:
            found.append(row)
    return found


def _overall(found: _Scored, scales: Mapping[str, Scale]) -> Table:
    rows = []
    for method in found.complete(scales):
        groups = found.normalised(method, scales)
        rows.append(
            {
                "method": method,
                "tasks": len(groups),
                "runs": sum(map(len, groups)),
                "iqm": interquartile_mean(np.concatenate(groups)),
                **_ends(groups, *bootstrap_interval(groups)),
            }
        )
    return rows


def _profiles(found: _Scored, scales: Mapping[str, Scale]) -> Table:
    groups = {method: found.normalised(method, scales) for method in found.complete(scales)}
    if not groups:
        return []
    every = np.concatenate([scores for tasks in groups.values() for scores in tasks])
    margin = max(0.02 * float(np.ptp(every)), 1e-9 * max(1.0, float(np.abs(every).max())))
    thresholds = np.linspace(every.min() - margin, every.max() + margin, THRESHOLDS)
    rows = []
    for method, tasks in groups.items():
        band = performance_profile(tasks, thresholds)
        points = zip(thresholds, band.middle, band.low, band.high, strict=True)
        rows += [
            {"method": method, "threshold": float(x), "share": float(share), **_ends(tasks, low, high)}
            for x, share, low, high in points
        ]
    return rows


def _improvement(found: _Scored) -> Table:
    rows = []
    for method, other in permutations(found.methods, 2):
        envs = found.scored_envs(method, other)
        if not envs:
            continue
        ours, theirs = ([found.scores(name, env) for env in envs] for name in (method, other))
        probability, interval = probability_of_improvement(ours, theirs)
        rows.append(
            {
                "method": method,
                "other": other,
                "tasks": len(envs),
                "probability": probability,
                **_ends([*ours, *theirs], *interval),
            }
        )
    return rows


def _curve(runs: Sequence[Run], method: str, env: str) -> Table:
    """Return the learning curve: evaluations are matched by their order, and end with the run that has the fewest."""
    if not runs:
        return []
    points = min(len(run.returns) for run in runs)
    steps = np.median([run.steps[:points] for run in runs], axis=0)
    band = mean_curve(np.stack([run.returns[:points] for run in runs]))
    return [
        {
            "method": method,
            "env": env,
            "step": int(steps[i]),
            "runs": len(runs),
            "iqm": float(band.middle[i]),
            **_ends([runs], band.low[i], band.high[i]),
        }
        for i in range(points)
    ]


def _flight(runs: Sequence[Run], method: str, env: str) -> Table:
    told = [run for run in runs if run.record.get(STEPS, np.zeros(0)).size]
    if not told:
        return []
    edges = np.linspace(0.0, max(float(run.record[STEPS][-1]) for run in told), BINS + 1)
    rows: Table = []
    for name in DIAGNOSTICS:
        binned = np.array([_binned(run, name, edges) for run in told if name in run.record])
        if not binned.size or np.isnan(binned).all():
            continue
        for i in np.flatnonzero(~np.isnan(binned).all(axis=0)):
            low, middle, high = np.nanquantile(binned[:, i], [0.25, 0.5, 0.75])
            rows.append(
                {
                    "method": method,
                    "env": env,
                    "metric": name,
                    "step": int(edges[i + 1]),
                    "median": float(middle),
                    "low": float(low),
                    "high": float(high),
                }
            )
    return rows


def _binned(run: Run, name: str, edges: np.ndarray) -> np.ndarray:
    """Return the mean of a number in each stretch of training, NaN where no iteration ends in it."""
    values, steps = run.record[name], run.record[STEPS]
    known = ~np.isnan(values)
    places = np.clip(np.searchsorted(edges, steps[known], side="left") - 1, 0, len(edges) - 2)
    sums = np.bincount(places, values[known], minlength=len(edges) - 1)
    counts = np.bincount(places, minlength=len(edges) - 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
