"""What a benchmark has measured: the data, the arithmetic on it, and the files that it is kept in."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROFILE = "profile"
"""The name of the side that measures the parts of an iteration."""
UPDATE = "update"
"""The name of the side that measures the parts of an update with a trust region."""
LIMIT = "limit"
"""The name of the side that measures what rate the arithmetic of an off-policy update allows."""
BELOW = (PROFILE, UPDATE, LIMIT)
"""Sides that have no row in the table, but a table or a line of their own below it."""
BUSY = 0.5
"""Load average of the last minute, before the first measurement, above which the figures earn a warning."""


@dataclass(frozen=True)
class Measurement:
    """One process that trained or stepped."""

    total_timesteps: int
    """Environment steps over all environments, warm-up included."""
    steps_per_second: float
    """By the process's own clock: compilation, warm-up and evaluation left out."""
    process_s: float
    """Seconds from the start of the process to its end, as seen from outside."""
    peak_memory_mib: float
    """Largest resident set, in MiB; of the largest process where there are several."""
    compile_time_s: float | None
    """Seconds of tracing and compiling; ``None`` where nothing is compiled."""
    versions: dict[str, str] = field(default_factory=dict)
    """What the process says of its own packages."""
    profile: dict[str, float] = field(default_factory=dict)
    """Milliseconds of parts, of a side that measures them; see ``peers/iteration.py`` and ``peers/trust_region.py``. Of the
    arithmetic limit, operations and their rate; see ``peers/arithmetic.py``."""

    @property
    def steps_per_process_second(self) -> float:
        """Steps over everything: starting Python, imports, compilation, training, saving."""
        return self.total_timesteps / self.process_s


@dataclass
class SideResult:
    """What one side of a comparison gave."""

    name: str
    title: str
    trials: dict[str, Measurement] = field(default_factory=dict)
    """A short first run of every variant, with an empty compile cache; the fastest variant is measured."""
    failed_trials: dict[str, str] = field(default_factory=dict)
    """Variants that failed, with the reason."""
    variant: str | None = None
    rounds: list[Measurement] = field(default_factory=list)
    """In order: the entries of the same index of all sides ran one after the other."""
    failure: str | None = None
    """Why the side has no more rounds."""

    @property
    def rates(self) -> list[float]:
        """Steps per second of each round."""
        return [one.steps_per_second for one in self.rounds]


@dataclass
class ComparisonResult:
    """Several sides that do the same work."""

    name: str
    title: str
    rollout: int
    """Environment steps of one iteration."""
    reference: str | None = None
    """The side that the others are measured by; ``None``: Jumar is measured by the others."""
    sides: list[SideResult] = field(default_factory=list)
    measured: str = ""
    """When, and at which commit, if that is not what the report says of all."""

    def side(self, name: str) -> SideResult | None:
        """Return the side of this name, if there is one."""
        return next((side for side in self.sides if side.name == name), None)


@dataclass
class Report:
    """A whole run of the benchmark."""

    date: str
    quick: bool
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    comparisons: list[ComparisonResult] = field(default_factory=list)
    interrupted: bool = False

    def put(self, result: ComparisonResult) -> None:
        """Put a comparison in the place of the one of its name, or at the end."""
        names = [comparison.name for comparison in self.comparisons]
        at = names.index(result.name) if result.name in names else len(names)
        self.comparisons[at : at + 1] = [result]

    @property
    def peer_versions(self) -> dict[str, dict[str, str]]:
        """What the sides that are not run by Jumar's interpreter say of their own packages, by title."""
        sides = [side for comparison in self.comparisons for side in comparison.sides]
        return {side.title: one.versions for side in sides for one in side.trials.values() if one.versions}

    @property
    def failures(self) -> list[str]:
        """A line for every side and variant that failed."""
        lines = []
        for comparison in self.comparisons:
            for side in comparison.sides:
                lines += [f"{comparison.name}, {side.title}: {side.failure}"] if side.failure else []
                lines += [f"{comparison.name}, {side.title}, {v}: {why}" for v, why in side.failed_trials.items()]
        return lines


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, and the range that they cover."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread | None:
        """Return the spread of the numbers; ``None`` where there are none."""
        return cls(statistics.median(numbers), min(numbers), max(numbers)) if numbers else None


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread | None:
    """Return how many times faster one side was: the ratio within each round, and its spread over the rounds.

    A change of the machine's speed between rounds cancels. Rounds that only one side has are left out.
    """
    return Spread.of([a / b for a, b in zip(numerator, denominator, strict=False)])


def round_steps(rate: float, seconds: float, unit: int) -> int:
    """Return how many steps take at least so many seconds at this rate, in whole units."""
    return max(1, math.ceil(rate * seconds / unit)) * unit


def to_markdown(report: Report) -> str:
    """Return the report as a page: a table for each comparison, and what it was measured on."""
    parts = ["# Speed", *_circumstances(report)]
    for comparison in report.comparisons:
        measured = [f"Measured {comparison.measured.rstrip('.')}."] if comparison.measured else []
        parts += [f"## {comparison.title}", *measured, _table(comparison), *_notes(comparison)]
    if report.failures:
        parts += ["## What failed", "\n".join(f"- {_cell(line)}" for line in report.failures)]
    return "\n\n".join(parts) + "\n"


def _circumstances(report: Report) -> list[str]:
    machine = report.machine
    lines = [
        f"{report.date}. {machine['processor']}, {machine['cores']} cores, {machine['system']}.",
        f"{_versions(report.versions)}.",
        *(f"{title}: {_versions(versions)}." for title, versions in report.peer_versions.items()),
        "Rates are medians over rounds (lowest to highest); the sides took turns. How many times as fast one side is as "
        "another, is the ratio within each round. Figures of different machines or runs are not comparable; ratios are, "
        "with care.",
    ]
    if report.quick:
        lines.append("**Quick run:** too short for figures to quote.")
    lines += busy(machine)
    if report.interrupted:
        lines.append("**Interrupted:** what was measured until then.")
    return lines


def busy(machine: Mapping[str, str | int | float]) -> list[str]:
    """Return a warning where the machine was not idle before the first measurement."""
    load = float(machine["load_before"])
    return [f"**Busy machine:** the load was {load} before the first measurement."] if load > BUSY else []


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _table(comparison: ComparisonResult) -> str:
    reference = comparison.side(comparison.reference) if comparison.reference else None
    header = (
        "",
        "steps/s",
        f"times as fast as {reference.title}" if reference else "Jumar is x times as fast",
        "steps/s, whole process",
        "compile s, first / cached",
        "peak MiB",
    )
    rows = [_row(side, _ratio(side, comparison)) for side in comparison.sides if side.name not in BELOW]
    lines = [header, ("---", *["---:"] * (len(header) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ratio(side: SideResult, comparison: ComparisonResult) -> Spread | None:
    """Return how many times as fast a side is as the reference; where there is none, Jumar as the side."""
    if comparison.reference:
        reference = comparison.side(comparison.reference)
        return paired_ratio(side.rates, reference.rates) if reference and side is not reference else None
    jumar = comparison.side("jumar")
    return paired_ratio(jumar.rates, side.rates) if jumar and not side.name.startswith("jumar") else None


def _row(side: SideResult, ratio: Spread | None) -> tuple[str, ...]:
    title = side.title if not side.variant else f"{side.title} ({side.variant})"
    rate = Spread.of(side.rates)
    if rate is None:
        return (title, "failed" if side.failure else "not measured", "", "", "", "")
    whole = statistics.median(one.steps_per_process_second for one in side.rounds)
    memory = max(one.peak_memory_mib for one in side.rounds)
    return (
        title,
        _spread(rate, ",.0f"),
        _spread(ratio, ".2f") if ratio else "",
        f"{whole:,.0f}",
        _compile_times(side),
        f"{memory:,.0f}",
    )


def _compile_times(side: SideResult) -> str:
    first = side.trials[side.variant].compile_time_s if side.variant in side.trials else None
    cached = [one.compile_time_s for one in side.rounds if one.compile_time_s is not None]
    if first is None or not cached:
        return ""
    return f"{first:.1f} / {statistics.median(cached):.1f}"


def _notes(comparison: ComparisonResult) -> list[str]:
    notes = []
    for name, parts, table in ((PROFILE, PARTS, profile_table), (UPDATE, UPDATE_PARTS, update_table)):
        side = comparison.side(name)
        rounds = [one.profile for one in side.rounds] if side else []
        if rounds and all(set(parts) <= set(profile) for profile in rounds):
            notes.append(table(rounds, comparison.rollout))
    jumar, limit = comparison.side("jumar"), comparison.side(LIMIT)
    if jumar and limit and jumar.rounds and limit.rounds:
        notes.append(limit_line(jumar.rates, limit.rates, [one.profile for one in limit.rounds]))
    return notes


def limit_line(rates: Sequence[float], limits: Sequence[float], rounds: Sequence[Mapping[str, float]]) -> str:
    """Return what share of the arithmetic limit was reached in the same round, and what the limit follows from."""
    share, most = paired_ratio(rates, limits), Spread.of(limits)
    assert share is not None
    assert most is not None
    found = medians(rounds, ("gflop", "gflop_per_second"))
    return (
        f"Jumar reaches {_spread(share, '.0%')} of the arithmetic limit, {_spread(most, ',.0f')} steps/s: the products of "
        f"one update are {found['gflop']:.3f} GFLOP, and a square product reaches {found['gflop_per_second']:,.0f} GFLOP/s."
    )


def medians(rounds: Sequence[Mapping[str, float]], parts: Sequence[str]) -> dict[str, float]:
    """Return the median of each part over rounds."""
    return {name: statistics.median(profile[name] for profile in rounds) for name in parts}


PARTS = ("iteration", "simulator", "policy", "collecting", "epochs", "advantages", "arithmetic")


def profile_table(rounds: Sequence[Mapping[str, float]], rollout: int) -> str:
    """Return where the time of one iteration goes, in milliseconds, and the limits beside it."""
    ms = medians(rounds, PARTS)
    between = ms["collecting"] - ms["simulator"] - ms["policy"]
    rest = ms["iteration"] - ms["collecting"] - ms["epochs"] - ms["advantages"]
    rows = [
        ("simulator", ms["simulator"], f"{ms['simulator']:.1f} (the simulator alone)"),
        ("policy", ms["policy"], ""),
        ("waiting and copying between them", between, ""),
        ("values, advantages, flight record", ms["advantages"], ""),
        ("epochs of minibatches", ms["epochs"], f"{ms['arithmetic']:.1f} (their products at the peak rate)"),
        ("all else", rest, ""),
        ("**whole iteration**", ms["iteration"], f"{ms['simulator'] + ms['arithmetic']:.1f}"),
    ]
    lines = [f"| one iteration of Jumar ({rollout:,} steps) | ms | share | limit, ms |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {name} | {part:.1f} | {_share(part, ms['iteration'])} | {limit} |" for name, part, limit in rows]
    return "\n".join(lines)


UPDATE_PARTS = ("update", "gradient", "product", "products", "search", "critic")


def update_table(rounds: Sequence[Mapping[str, float]], rollout: int) -> str:
    """Return where the time of one update with a trust region goes, and what a Fisher-vector product costs."""
    ms = medians(rounds, UPDATE_PARTS)
    rest = ms["update"] - ms["gradient"] - ms["products"] - ms["search"] - ms["critic"]
    rows = [
        ("gradient of the objective", ms["gradient"]),
        (f"{ms['products'] / ms['product']:.0f} Fisher-vector products", ms["products"]),
        ("line search", ms["search"]),
        ("epochs of the critic", ms["critic"]),
        ("values, advantages, flight record", rest),
        ("**whole update**", ms["update"]),
    ]
    cost = Spread.of([profile["product"] / profile["gradient"] for profile in rounds])
    assert cost is not None
    lines = [f"| one update of Jumar's TRPO ({rollout:,} rows) | ms | share |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {part:.2f} | {_share(part, ms['update'])} |" for name, part in rows]
    words = f"A Fisher-vector product takes as long as {_spread(cost, '.2f')} gradients of the same rows."
    return "\n".join([*lines, "", words])


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _spread(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.lowest:{form}} to {spread.highest:{form}})"


def _cell(text: str) -> str:
    return " ".join(text.split())


def to_json(report: Report) -> str:
    """Return everything that was measured, as JSON."""
    return json.dumps(asdict(report), indent=1, allow_nan=False) + "\n"


def read(folder: Path) -> Report:
    """Read what :func:`write` wrote."""
    data = json.loads((folder / "speed.json").read_text(encoding="utf-8"))
    comparisons = [
        ComparisonResult(**{**one, "sides": [_side(**side) for side in one["sides"]]}) for one in data["comparisons"]
    ]
    return Report(**{**data, "comparisons": comparisons})


def _side(trials: dict[str, dict[str, Any]], rounds: list[dict[str, Any]], **others: Any) -> SideResult:
    measured = {variant: Measurement(**trial) for variant, trial in trials.items()}
    return SideResult(trials=measured, rounds=[Measurement(**one) for one in rounds], **others)


def write(report: Report, folder: Path) -> None:
    """Write ``speed.json`` and ``speed.md``; each is the old file or the new one, whenever this stops."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("speed.json", to_json(report)), ("speed.md", to_markdown(report))):
        temporary = folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / name)
