"""The parts of the page that are words and tables."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jumar.errors import DamagedFile
from jumar.presets import presets
from jumar.report.comparison import Comparison, Run, Scale, compare_runs
from jumar.report.pages import explanation, interval, overall_cells, score_cells
from jumar.runs.files import read_bytes
from jumar.studies.cells import beside_defaults, protocol_of
from jumar.text import clock_time, counted, percent, printable, repeat_words, short_number
from jumar.training.config_file import only_from_python
from jumar.web import settings_rows
from jumar.web.charts import TRAINING, Groups
from jumar.web.elements import Markup, element, escaped, table, together
from jumar.web.gathering import Gathering
from jumar.web.health import Complaint
from jumar.web.videos import Video
from jumar.web.watched import WatchedRun, shown_seconds

MOST_ROWS = 60
"""How many evaluations of a run a table has."""
MOST_ITEMS = 60
MOST_COLUMNS = 12
"""With more groups of runs than this, a table of settings shows the first ones."""
RESULTS = "results.json"
LARGEST_RESULTS = 64 * 2**20


def shown(text: str) -> str:
    """Return a text of foreign origin as it may be shown by the page's script, which escapes nothing: it sets texts."""
    return printable(text)


# The top --------------------------------------------------------------------------------------------------------------


def title(gathering: Gathering, groups: Groups) -> str:
    """Return the page's title."""
    if groups.single:
        return groups.runs[0].words
    if not groups.runs:
        return "Waiting for " + ", ".join(str(place) for place in gathering.missing)
    methods, tasks = groups.methods, groups.tasks
    what = methods[0] if len(methods) == 1 else f"{len(methods)} methods"
    where = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    return f"{what} on {where}, {counted(len(groups.runs), 'run')}"


def top(gathering: Gathering, groups: Groups, *, live: bool) -> Markup:
    """Return the heading, in which state everything is, and the numbers that are looked at first."""
    badge = element("span", "live", class_="badge live", id="connection", role="status") if live else ""
    heading = element("div", element("h1", title(gathering, groups)), _state_badge(groups), badge, class_="title")
    if not groups.runs:
        waiting = element("p", "There is no run here yet; the page shows one as soon as it appears.")
        return together([heading, waiting])
    tiles = _tiles_of_one(groups.runs[0]) if groups.single else _tiles_of_several(groups)
    found = [
        element("div", element("dt", name), element("dd", value, element("small", words) if words else ""))
        for name, value, words in tiles
    ]
    return together([heading, _where(groups), element("dl", *found, class_="tiles")])


def _where(groups: Groups) -> Markup:
    if not groups.single:
        return Markup("")
    return element("p", element("code", str(groups.runs[0].directory)), class_="where")


def _state_badge(groups: Groups) -> Markup:
    if not groups.runs:
        return Markup("")
    if groups.single:
        [run] = groups.runs
        return element("span", state_words(run), class_=f"badge {run.state.split()[0]}")
    states = [run.state for run in groups.runs]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    all_done = set(states) == {"finished"}
    return element(
        "span", "finished" if all_done else ", ".join(parts), class_=f"badge {'finished' if all_done else 'under'}"
    )


def state_words(run: WatchedRun) -> str:
    """Return in which state a run is, and how far."""
    if run.state == "finished":
        return f"finished: {run.stopped_by}" if run.steps < run.plan.total_timesteps else "finished"
    if run.state == "not begun":
        return "nothing logged yet"
    return f"{run.state}, {percent(run.share)}"


def _tiles_of_one(run: WatchedRun) -> list[tuple[str, str, str]]:
    metrics, evaluations = run.metrics.last, run.evaluations.last
    found = []
    if "mean" in evaluations:
        std = f"± {short_number(evaluations['std'])}, " if "std" in evaluations else ""
        found.append(("Last evaluation", short_number(evaluations["mean"]), f"{std}step {evaluations['step']:,.0f}"))
    if run.best is not None:
        found.append(("Best evaluation", short_number(run.best[1]), f"step {run.best[0]:,}"))
    if TRAINING in metrics:
        found.append(("Training return", short_number(metrics[TRAINING]), "last 100 episodes"))
    found.append(("Steps", f"{run.steps:,}", f"of {run.plan.total_timesteps:,}"))
    if not math.isnan(seconds := shown_seconds(run)):
        found.append(("Time", clock_time(seconds), "with compilation"))
    if (speed := metrics.get("time/steps_per_second")) is not None:
        found.append(("Steps per second", f"{speed:,.0f}", ""))
    return found


def _tiles_of_several(groups: Groups) -> list[tuple[str, str, str]]:
    done = sum(run.state == "finished" for run in groups.runs)
    steps = sum(run.steps for run in groups.runs)
    seeds = len({run.plan.seed for run in groups.runs})
    found = [("Runs", str(len(groups.runs)), f"{done} finished")]
    found += [("Methods", str(len(groups.methods)), "")] if len(groups.methods) > 1 else []
    found += [("Tasks", str(len(groups.tasks)), "")] if len(groups.tasks) > 1 else []
    found.append(("Seeds", str(seeds), ""))
    last = [run.evaluations.last["mean"] for run in groups.runs if "mean" in run.evaluations.last]
    if len(groups.methods) == 1 and len(groups.tasks) == 1 and last:
        ends = f"{short_number(min(last))} to {short_number(max(last))}"
        found.append(("Last evaluation", short_number(float(np.mean(last))), f"mean over seeds, {ends}"))
    found.append(("Steps", f"{steps:,}", "together"))
    return found


# Health ---------------------------------------------------------------------------------------------------------------


def health(groups: Groups) -> Markup:
    """Return what was off, in words."""
    if not groups.runs:
        return Markup("")
    items = []
    for run in groups.runs:
        where = "" if groups.single else element("strong", f"{run.words}: ")
        items += [element("li", where, words, class_=kind) for kind, words in complaints_of(run)]
    left = len(items) - MOST_ITEMS
    if left > 0:
        items = [*items[:MOST_ITEMS], element("li", f"and {left} more.")]
    if not items:
        known = max(run.complaints.known for run in groups.runs)
        words = (
            f"None of the {known} known symptoms lasted for ten iterations."
            if known
            else "Nothing has been logged yet."
        )
        items = [element("li", words, class_="good" if known else None)]
    return together([element("h2", "Health"), element("ul", *items, class_="health")])


def complaints_of(run: WatchedRun) -> list[tuple[str, str]]:
    """Return what is off with a run: whether it lasts or has passed, and a sentence."""
    found = [("off" if one.lasting else "passed", _complaint_words(one)) for one in run.complaints.found]
    if run.trouble:
        found.append(("off", run.trouble))
    last, std = run.evaluations.last.get("mean"), run.evaluations.last.get("std", 0.0)
    if run.best is not None and last is not None and last < run.best[1] - max(2.0 * std, 0.1 * abs(run.best[1])):
        found.append(
            (
                "off",
                f"The last evaluation, {short_number(last)}, is well below the best one, {short_number(run.best[1])} at step "
                f"{run.best[0]:,}; that policy is kept in best/.",
            )
        )
    if cut := run.evaluations.last.get("cut"):
        episodes, were = counted(int(cut), "episode"), "was" if cut == 1 else "were"
        found.append(("off", f"{episodes} of the last evaluation had not ended and {were} cut."))
    if run.state == "stopped":
        found.append(("off", f"It stopped at {run.steps:,} of {run.plan.total_timesteps:,} steps."))
    return found


def _complaint_words(one: Complaint) -> str:
    words = one.words[:1].upper() + one.words[1:]
    when = f"steps {one.first:,} to {one.last:,}, {counted(one.iterations, 'iteration')}"
    return f"{words} ({when}{'' if one.lasting else '; not since'})."


# Comparison -----------------------------------------------------------------------------------------------------------


def compared(gathering: Gathering, groups: Groups) -> Comparison | None:
    """Return the tables of a comparison where there are several methods; scores are those of ``jumar compare``."""
    if not gathering.comparisons and len(groups.methods) < 2:
        return None
    runs = list({(run.method, run.env, run.seed): run for run in map(_as_compared, groups.runs)}.values())
    if not any(run.counts for run in runs):
        return None
    last, scales = 10, {}
    if len(gathering.comparisons) == 1:
        last, scales = _asked(gathering.comparisons[0], {run.env for run in runs})
    return compare_runs(runs, last=last, scales=scales)


def _as_compared(run: WatchedRun) -> Run:
    points = run.evaluations.points("mean", run.evaluations.capacity)
    failure = (
        None if run.state == "finished" else f"it stopped after {run.steps:,} of {run.plan.total_timesteps:,} steps."
    )
    waiting = run.state == "under way"
    if failure is None and not points.known:
        failure = "it was never evaluated."
    return Run(
        run.method,
        run.task,
        run.plan.seed,
        points.x,
        points.mean,
        failure=None if waiting else failure,
        path=str(run.directory),
        told=beside_defaults(run.plan),
        protocol=protocol_of(run.plan),
        ended=run.steps if run.stopped_by else None,
        waiting=waiting,
    )


def _asked(place: Path, envs: set[str]) -> tuple[int, dict[str, Scale]]:
    """Return how many evaluations make a score, and the scales, as the comparison's results have them; else what is usual."""
    try:
        about = json.loads(read_bytes(place / RESULTS, "table of results", LARGEST_RESULTS))["about"]
        last, given = about["last"], about["scales"]
        scales = {env: (float(low), float(high)) for env, (low, high) in given.items() if env in envs}
    except (DamagedFile, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return 10, {}
    sound = type(last) is int and 1 <= last <= 10**6
    sound = sound and all(math.isfinite(low) and math.isfinite(high) and low < high for low, high in scales.values())
    return (last, scales) if sound else (10, {})


def scores(comparison: Comparison | None) -> Markup:
    """Return the tables of scores."""
    if comparison is None:
        return Markup("")
    heading, *rows = score_cells(comparison)
    parts = [
        element("h2", "Scores"),
        element("p", explanation(comparison)),
        table("Scores of each method in each task", heading, rows, numbers=range(2, 99)),
    ]
    if comparison.normalised and comparison.overall:
        heading, *rows = overall_cells(comparison)
        parts += [element("h3", "All tasks"), table("Normalised scores over all tasks", heading, rows)]
    if comparison.improvement:
        rows = [
            [row["method"], row["other"], str(row["tasks"]), f"{row['probability']:.2f}", interval(row)]
            for row in comparison.improvement
        ]
        parts += [
            element("h3", "Probability of improvement"),
            element("p", "How likely a run of one method scores higher than one of the other."),
            table(
                "Probability of improvement",
                ["method", "other", "tasks", "probability", "95 % interval"],
                rows,
                numbers=range(2, 99),
            ),
        ]
    return together(parts)


# Tables ---------------------------------------------------------------------------------------------------------------


def evaluations(groups: Groups) -> Markup:
    """Return a table of the evaluations of a single run."""
    if not groups.single:
        return Markup("")
    [run] = groups.runs
    log = run.evaluations
    known = {
        name: log.points(name, MOST_ROWS).mean
        for name in ("mean", "std", "least", "greatest", "length", "episodes", "cost", "cut")
    }
    x = log.points("mean", MOST_ROWS).x
    if not len(x):
        return Markup("")
    shown_names = [
        name
        for name, values in known.items()
        if not np.isnan(values).all() and not (name == "cut" and not np.nansum(values))
    ]
    labels = {"mean": "mean return", "std": "deviation", "length": "mean length", "cut": "cut"}
    rows = [
        [f"{step:,.0f}", *(_cell(known[name][i], whole=name in ("episodes", "cut")) for name in shown_names)]
        for i, step in enumerate(x)
    ]
    merged = log.merged_lines("mean", MOST_ROWS)
    caption = "Evaluations" + (f", means over {merged} each" if merged > 1 else "")
    content = table(caption, ["step", *(labels.get(name, name) for name in shown_names)], rows)
    summary = element("summary", element("h2", "Evaluations"), element("span", f"{log.lines:,}", class_="count"))
    return element("details", summary, content, id="evaluation-table")


def _cell(value: float, *, whole: bool = False) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if whole else short_number(float(value))


def runs_table(groups: Groups) -> Markup:
    """Return a table of the runs, where there are several."""
    if groups.single or not groups.runs:
        return Markup("")
    heading = ["method", "task", "seed", "state", "steps", "last evaluation", "best", "training return", "time", "run"]
    rows = []
    for run in groups.runs:
        best = short_number(run.best[1]) if run.best else "-"
        last, trained = run.evaluations.last.get("mean", math.nan), run.metrics.last.get(TRAINING, math.nan)
        numbers = [f"{run.steps:,}", _cell(last), best, _cell(trained), clock_time(shown_seconds(run))]
        path = element("code", str(run.directory))
        rows.append([run.method, run.task, str(run.plan.seed), state_words(run), *numbers, path])
    return together([element("h2", "Runs"), table("Every run", heading, rows, numbers=range(4, 9))])


def settings(groups: Groups) -> Markup:
    """Return the settings: those that differ first, and all of them folded."""
    if not groups.runs:
        return Markup("")
    sorts = settings_rows.distinct(groups.runs)
    left = len(sorts) - MOST_COLUMNS
    sorts = sorts[:MOST_COLUMNS]
    rows = settings_rows.rows([sort[0].plan for sort in sorts])
    if len(sorts) == 1:
        unusual = [[element("code", row.name), row.values[0], row.default] for row in rows if row.unusual]
        words = "Settings that are not the algorithm's defaults" + (
            ", those of the preset among them" if _preset(sorts[0][0]) else ""
        )
        first = (
            table(words, ["setting", "value", "default"], unusual, numbers=())
            if unusual
            else element("p", "All settings are the defaults.")
        )
    else:
        differing = [[element("code", row.name), *row.values] for row in rows if row.differs]
        first = table("Settings that differ", ["setting", *(_sort_name(sort) for sort in sorts)], differing, numbers=())
    names = [_sort_name(sort) for sort in sorts] if len(sorts) > 1 else ["value"]
    everything = [[element("code", row.name), *row.values, row.default] for row in rows]
    folded = element(
        "details",
        element("summary", element("h3", "All settings"), element("span", str(len(rows)), class_="count")),
        table("All settings", ["setting", *names, "default"], everything, numbers=()),
        id="all-settings",
    )
    more = element("p", f"{counted(left, 'further group')} of runs not shown.") if left > 0 else ""
    return together([element("h2", "Settings"), first, more, folded])


def _sort_name(sort: Sequence[WatchedRun]) -> str:
    name = f"{sort[0].method} on {sort[0].task}"
    return name + (f", {counted(len(sort), 'run')}" if len(sort) > 1 else f", seed {sort[0].plan.seed}")


def _preset(run: WatchedRun) -> str | None:
    return run.plan.preset


def machine(groups: Groups) -> Markup:
    """Return versions, what the runs ran on, and the presets that they began from."""
    if not groups.runs:
        return Markup("")
    configs: list[Any] = []
    for run in groups.runs:
        words = {name: run.config.get(name) for name in ("jumar", "python", "versions", "machine")}
        if words not in configs:
            configs.append(words)
    rows = settings_rows.version_rows(configs[:MOST_COLUMNS])
    parts = [element("h2", "Versions and machine"), _facts([row for row in rows if not row.differs])]
    if len(configs) > 1:
        heading = ["", *(f"group {i + 1}" for i in range(len(configs[:MOST_COLUMNS])))]
        differing = [[row.name, *row.values] for row in rows if row.differs]
        parts.append(table("What differs", heading, differing, numbers=()))
    if not any(isinstance(config["machine"], dict) for config in configs):
        parts.append(element("p", "The machine is not recorded: the configuration is from an earlier version."))
    known = list(dict.fromkeys((run.plan.algorithm, run.plan.preset) for run in groups.runs if run.plan.preset))
    if known:
        parts += [element("h3", "Presets"), element("ul", *(element("li", _preset_words(*one)) for one in known))]
    return together(parts)


def _facts(rows: Sequence[settings_rows.Row]) -> Markup:
    found = [element("div", element("dt", row.name), element("dd", row.values[0])) for row in rows]
    return element("dl", *found, class_="facts")


def _preset_words(algorithm: str, name: str) -> str:
    preset = presets(algorithm).get(name)
    reached = "not one of this version" if preset is None else str(preset.reached or "not measured")
    return f"{algorithm}, preset {name}: {reached}"


def videos(found: Sequence[Video], folder: Path | None) -> Markup:
    """Return the films, and where those are that are too large for the page."""
    figures = [_video(video, folder) for video in found]
    return together([element("h2", "Videos"), element("div", *figures, class_="videos")]) if figures else Markup("")


def _video(video: Video, folder: Path | None) -> Markup:
    words = f"{video.run.words}: {video.path.name}"
    size = f"{video.size / 2**20:.1f} MiB"
    caption = element("figcaption", words, element("span", size, class_="summary"))
    if video.data is None:
        address = video.address_from(folder)
        name = element("a", video.path.name, href=address) if address else element("code", str(video.path))
        return element("figure", element("p", "Too large to be a part of the page: ", name), caption)
    # Base64 needs no escaping, and is too long to be looked through.
    if video.kind == "image/gif":
        shown_video = Markup(f'<img alt="{escaped(words)}" loading="lazy" src="{video.data}">')
    else:
        shown_video = Markup(
            f'<video controls muted playsinline preload="metadata" aria-label="{escaped(words)}" src="{video.data}"></video>'
        )
    return element("figure", shown_video, caption)


# Notes and commands ---------------------------------------------------------------------------------------------------


def notes(gathering: Gathering, *, all_numbers: bool) -> list[str]:
    """Return what the page leaves out or passed over."""
    found = []
    for run in gathering.runs:
        if run.metrics.passed_over:
            lines = counted(run.metrics.passed_over, "line")
            found.append(
                f"{run.directory.metrics}: {lines} without a step, or with one that does not rise, passed over."
            )
        if run.metrics.left_out:
            found.append(
                f"{run.directory.metrics}: numbers beyond the first 200 names, or with long names, are left out."
            )
    if not all_numbers:
        found.append("There are many runs: only the key signals of the flight record are drawn.")
    if gathering.runs:
        found += [f"There is no run at {place} yet." for place in gathering.missing]
    return found


def notes_list(words: Sequence[str]) -> Markup:
    """Return notes as a list."""
    if not words:
        return Markup("")
    left = len(words) - MOST_ITEMS
    items = [*words[:MOST_ITEMS], *([f"and {left} more."] if left > 0 else [])]
    return together([element("h2", "Notes"), element("ul", *(element("li", item) for item in items))])


def next_steps(gathering: Gathering, groups: Groups) -> Markup:
    """Return commands to go on with."""
    steps = _after_one(groups.runs[0]) if groups.single else _after_several(gathering, groups)
    items = [element("li", element("code", shown(command)), element("span", words)) for command, words in steps]
    return (
        together([element("h2", "What to type next"), element("ul", *items, class_="commands")])
        if items
        else Markup("")
    )


def _after_one(run: WatchedRun) -> list[tuple[str, str]]:
    path = shlex.quote(str(run.directory))
    part = run.config.get("kind") == "seed"
    whole = shlex.quote(str(run.directory.path.parent)) if part else path
    everything = ", all seeds together" if part else ""
    again = repeat_words(run.plan.repeat_env, run.plan.repeat_wrappers, run.plan.own_names.encoder)
    environment = " --env ENV" if run.plan.offline else ""
    evaluate = (f"jumar evaluate {path}{again}{environment}", "evaluate the final policy")
    if run.state == "under way":
        return [(f"jumar live {path}", "watch it in a browser while it goes on")]
    if only_from_python(run.plan) is not None:
        where = str(run.directory.path.parent if part else run.directory)
        return [(f"jumar.load({where!r}, ...)", "in Python, which has your own code: evaluate it, or go on")]
    if run.state != "finished":
        return [(f"jumar resume {whole}{again}", f"go on from the newest checkpoint{everything}")]
    found: list[tuple[str, str]] = [evaluate]
    if run.best is not None and run.best[0] != int(run.evaluations.last.get("step", 0)):
        found.append(
            (f"jumar evaluate {path} --best{again}{environment}", f"evaluate the policy of step {run.best[0]:,}")
        )
    if run.plan.own_names.encoder is None:
        found.append((f"jumar export {path} --format onnx", "write the policy for programs without Jumar"))
    total = 2 * run.plan.total_timesteps
    found.append((f"jumar resume {whole}{again} --total-timesteps {total}", f"train for as long again{everything}"))
    return found


def _after_several(gathering: Gathering, groups: Groups) -> list[tuple[str, str]]:
    places = " ".join(shlex.quote(str(place)) for place in gathering.places if place not in gathering.missing)
    found = []
    if any(run.state == "under way" for run in groups.runs):
        found.append((f"jumar live {places}", "watch them in a browser while they go on"))
    if groups.runs and not gathering.comparisons:
        found.append((f"jumar compare --from {places}", "scores with intervals, as tables and pictures"))
    stopped = [_after_one(run)[0] for run in groups.runs if run.state == "stopped"]
    found += list(dict.fromkeys(stopped))[:3]  # several seeds of one run go on together
    finished = [run for run in groups.runs if run.state == "finished" and only_from_python(run.plan) is None]
    scored = [run for run in finished if run.best is not None]
    for task in groups.tasks[:3]:
        here = [run for run in scored if run.task == task]
        if here:
            best = max(here, key=lambda run: run.best[1] if run.best else -math.inf)
            again = repeat_words(best.plan.repeat_env, best.plan.repeat_wrappers, best.plan.own_names.encoder)
            words = "the best policy" + (f" on {task}" if len(groups.tasks) > 1 else "")
            found.append((f"jumar evaluate {shlex.quote(str(best.directory))} --best{again}", f"evaluate {words}"))
    return found
