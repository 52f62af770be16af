"""A sweep as text: its table, and one page for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jumar.presets import NONE
from jumar.report.pages import interval, markdown, number
from jumar.report.statistics import bootstrap_interval
from jumar.studies.cells import beside_defaults
from jumar.studies.space import Space
from jumar.studies.trial_runs import shown
from jumar.studies.trials import COMPLETE, FAILED, PRUNED, Trial
from jumar.text import counted, percent, typed
from jumar.training.config_file import config_text, writable
from jumar.training.plan import Plan

SHOWN = 10
"""How many of the best trials are listed."""
IN_WORDS = {
    "iqm": "the interquartile mean",
    "mean": "the mean",
    "median": "the median",
    "worst": "the worst",
}


def rows(space: Space, trials: Sequence[Trial], *, flat: bool = False) -> list[dict[str, Any]]:
    """Return a record of every trial; with ``flat`` one whose values are plain, for CSV."""
    found = []
    for trial in trials:
        row: dict[str, Any] = {
            "number": trial.number,
            "state": trial.state,
            "value": space.value(trial.scores) if trial.scores else None,
        }
        if flat:
            row |= {name: typed(value) for name, value in trial.settings.items()}
            row["scores"] = " ".join(map(repr, trial.scores))
        else:
            row |= {"settings": dict(trial.settings), "scores": list(trial.scores)}
        found.append({**row, "reason": trial.reason, "same_as": trial.same_as})
    return found


def ranked(space: Space, trials: Sequence[Trial]) -> list[Trial]:
    """Return the complete trials with different settings, the best first."""
    complete = [trial for trial in trials if trial.state == COMPLETE and trial.same_as is None]
    return sorted(complete, key=lambda trial: -space.goodness(trial.scores))


def cells(space: Space, trials: Sequence[Trial], *, settings: bool = True) -> list[list[str]]:
    """Return the table of the best trials as texts, the heading first; without their ``settings`` it is narrower."""
    searched = list(space.search) if settings else []
    heading = ["trial", *searched, "seeds", "value", "95 % interval", "worst seed", "best seed"]
    table = [heading]
    for trial in ranked(space, trials)[:SHOWN]:
        ends = {"low": None, "high": None}
        if len(trial.scores) > 1:
            ends = bootstrap_interval(np.array(trial.scores, np.float64), space.statistic)._asdict()
        values = [shown(trial.settings[name]) for name in searched]
        scores = [number(min(trial.scores)), number(max(trial.scores))]
        table.append(
            [
                str(trial.number),
                *values,
                str(len(trial.scores)),
                number(space.value(trial.scores)),
                interval(ends),
                *scores,
            ]
        )
    return table


def counts(trials: Sequence[Trial]) -> str:
    """Say how many trials there are, and how they ended."""
    states = [(PRUNED, "pruned"), (FAILED, "failed"), ("running", "not done")]
    numbers = [(sum(trial.state == state for trial in trials), words) for state, words in states]
    others = [f"{found} {words}" for found, words in numbers if found]
    repeated = sum(trial.same_as is not None for trial in trials)
    others += [f"{repeated} with the settings of an earlier one"] if repeated else []
    return counted(len(trials), "trial") + (f" ({', '.join(others)})" if others else "")


def page(
    space: Space,
    trials: Sequence[Trial],
    best: Trial | None,
    importance: Mapping[str, float] | None,
    pictures: Sequence[str],
    preset_file: str,
) -> str:
    """Return a sweep in Markdown, with the pictures by their file names."""
    lines = [f"# Sweep of {space.algorithm} on {space.env}", "", explanation(space), "", f"{counts(trials)}."]
    if best is not None:
        settings = ", ".join(f"`{name}={typed(value)}`" for name, value in best.settings.items())
        lines += ["", f"Best: trial {best.number}, {number(space.value(best.scores))}, with {settings}. {SELECTION}"]
        lines += [
            "",
            f"`{preset_file}` has all of its settings: `{command(space, preset_file)}`.",
            "",
            "## Best trials",
            "",
        ]
        lines += markdown(cells(space, trials))
    lines += ["", "## What was searched", ""]
    lines += [f"- `{name}`: {domain}" for name, domain in space.search.items()]
    lines += [f"- fixed: `{name}={typed(value)}`" for name, value in space.settings.items()]
    if importance is not None:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in importance.items())
        lines += ["", "## Importance", "", f"{shares}. {IMPORTANCE}"]
    if failed := [trial for trial in trials if trial.state == FAILED and trial.same_as is None]:
        lines += ["", "## Failed", "", *(f"- trial {trial.number}: {trial.reason}" for trial in failed)]
    for name in pictures:
        lines += ["", f"![{name.removesuffix('.png').replace('_', ' ')}]({name})", "", CAPTIONS[name]]
    return "\n".join(lines) + "\n"


SELECTION = (
    "The best of many is partly the luckiest: train it over other seeds for a fair value, and where intervals overlap, "
    "settings cannot be told apart."
)
IMPORTANCE = (
    "The share that each setting has in whether a trial is among the best, by PED-ANOVA; with few trials it is rough."
)
CAPTIONS = {
    "importance.png": "Importance, by PED-ANOVA.",
    "parallel_coordinates.png": "Every line is a trial: its settings, and its value at the right. Grey: pruned.",
}


def explanation(space: Space) -> str:
    """Say what the numbers are."""
    one = (
        f"the mean return of the last {counted(space.last, 'evaluation')} of {counted(space.eval_episodes, 'episode')}"
    )
    which = "largest" if space.maximize else "smallest"
    return (
        f"Each run trains for {space.total_timesteps:,} steps; its score is {one}. A trial's value is "
        f"{IN_WORDS[space.objective]} of the scores of {counted(space.seeds, 'seed')}, and the {which} is the best. Intervals: "
        "95 % percentile intervals of a bootstrap over seeds."
    )


def best_text(space: Space, best: Trial, trials: Sequence[Trial], plan: Plan, path: Path) -> str:
    """Return the content of the file with the best settings: a configuration file, which is a preset, too.

    It has the settings that were searched, those that were fixed, and those that are not the algorithm's defaults.
    """
    value = number(space.value(best.scores))
    head = [
        f"The best of {counted(len(trials), 'trial')}, trial {best.number}: {value} over {counted(space.seeds, 'seed')} "
        f"({IN_WORDS[space.objective]}) in {space.total_timesteps:,} steps.",
        f"  {command(space, shlex.quote(str(path)))}",
    ]
    resolved, unusual = plan.settings.to_json(), beside_defaults(plan)
    names = [name for name in resolved if name in {*space.search, *space.settings, *unusual}]
    values = {
        "algorithm": space.algorithm,
        "env": space.env,
        "total_timesteps": space.total_timesteps,
        "preset": NONE,
        **({} if space.cost is None else {"cost": space.cost}),
        **{name: writable(resolved[name]) for name in names},
    }
    return config_text(values, head=head)


def command(space: Space, preset_file: str) -> str:
    """Return the command that trains with the best settings."""
    what = f"{space.algorithm} {shlex.quote(space.env)}"
    return f"jumar train {what} --preset {preset_file} --total-timesteps {space.total_timesteps}"
