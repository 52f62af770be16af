"""Comparisons that papers made, made again with Jumar's own `compare`.

    .venv/bin/python benchmarks/comparisons.py                  # all
    .venv/bin/python benchmarks/comparisons.py --only limit     # a limit on costs beside prices on them
    .venv/bin/python benchmarks/comparisons.py --only limit --presets   # also writes what CPO's presets reached

Runs are kept below ``runs/comparisons``: a stopped command goes on where it was. ``results/comparisons.md`` has the
tables, ``results/comparisons.json`` their numbers, and ``results/comparisons`` the pictures; all are written whenever a part of
a study is done.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import HERE, say
from tables import PRESETS, PROTOCOL, circumstances, write_reached

from jumar.algorithms.on_policy.cpo import CPOSettings
from jumar.console.signals import Stopped
from jumar.errors import JumarError
from jumar.presets import Reached, choose
from jumar.report.comparison import Comparison
from jumar.report.pages import interval, markdown, number, with_error
from jumar.runs.files import write_atomically
from jumar.studies.compare import compare
from jumar.studies.compare_request import CompareRequest
from jumar.studies.methods import Method
from jumar.studies.progress import make_progress

RESULTS = HERE / "results"
RUNS = HERE.parent / "runs" / "comparisons"
PICTURES = ("learning_curves.png", "diagnostics.png")
TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")

Row = dict[str, Any]
Tables = dict[str, list[Row]]
Parts = Mapping[str, Tables]
"""The tables of each part of a study, by the part's name."""
Found = dict[str, Any]
"""What is kept of a part: ``about`` its making, the ``presets`` that it started from, what was ``asked``, its ``tables``."""
Results = dict[str, dict[str, Found]]
"""What is kept, by study and part."""


@dataclass(frozen=True)
class Study:
    """A question, and the comparisons that answer it."""

    title: str
    words: str
    table: Callable[[Parts], list[str]]
    """Returns the page's lines about what was found."""
    parts: Mapping[str, CompareRequest]
    """By name; the name of an only part is empty."""


def bare(env: str) -> str:
    """Return an environment's name without its backend."""
    return env.rpartition("/")[2]


# The objectives of PPO ------------------------------------------------------------------------------------------------

EPOCHS = {"n_envs": 16, "n_steps": 128, "normalize_observations": True, "normalize_rewards": True}
CLIPPED = "clip 0.2"


def objective(name: str, algorithm: str, **settings: Any) -> Method:
    """Return PPO with one objective and otherwise the same settings, those of the paper where it names them."""
    return Method(name, algorithm, {**EPOCHS, **settings}, preset="none")


def objectives_table(found: Parts) -> list[str]:
    """Return how each objective does over all tasks and in each, and how likely the clipped one does better."""
    tables = found[""]
    scores = {(row["method"], row["env"]): row for row in tables["scores"]}
    envs = list(dict.fromkeys(row["env"] for row in tables["scores"]))
    better = {row["other"]: row["probability"] for row in tables["improvement"] if row["method"] == CLIPPED}
    cells = [["objective", "seeds", "all tasks, normalised", *map(bare, envs), "mean KL", f"P({CLIPPED} is better)"]]
    for row in tables["overall"]:
        method = row["method"]
        in_tasks = [scores[method, env] for env in envs]
        line = [method, str(row["runs"] // row["tasks"])]
        line += [f"{number(score['iqm'])} [{interval(score)}]" for score in (row, *in_tasks)]
        cells.append([*line, ", ".join(number(score["mean_kl"]) for score in in_tasks), number(better.get(method))])
    return markdown(cells)


OBJECTIVES = Study(
    "The objectives of PPO",
    "The comparison of Table 1 in Schulman et al. (2017), on three of its tasks: the clipped objective, penalties with "
    "adapted and with fixed coefficients, and neither. All else is the same: Adam with a constant 3e-4, 10 epochs of "
    "minibatches of 64, 2,048 steps of 16 environments an iteration, normalised observations and rewards.",
    objectives_table,
    {
        "": CompareRequest(
            methods=(
                objective("clip 0.1", "ppo", clip_range=0.1),
                objective(CLIPPED, "ppo", clip_range=0.2),
                objective("clip 0.3", "ppo", clip_range=0.3),
                objective("adaptive KL 0.01", "ppo-penalty", target_kl=0.01),
                objective("adaptive KL 0.03", "ppo-penalty", target_kl=0.03),
                objective("fixed KL, 1", "ppo-penalty", adaptive_kl=False, kl_coef=1.0),
                objective("fixed KL, 3", "ppo-penalty", adaptive_kl=False, kl_coef=3.0),
                objective("neither", "ppo", clip_range=1e9),
            ),
            envs=TASKS,
        )
    },
)


# A limit on costs -----------------------------------------------------------------------------------------------------

LIMIT = CPOSettings().cost_limit
VELOCITIES = dict(zip(TASKS, (3.2096, 0.7402, 2.3415), strict=True))
"""The velocities beyond which a step costs 1, as Safety-Gymnasium has them: half of what PPO reached without a limit."""
PRICES = (1.0, 3.0, 5.0, 10.0)


def limit_table(found: Parts) -> list[str]:
    """Return return and cost of each method in each task, beside the best price that kept the limit."""
    heading = ["task", "method", "seeds", "return, IQM", "95 % interval", "cost", "limit kept"]
    cells = [[*heading, "share of the best price's"]]
    for tables in found.values():
        prices = [row for row in tables["scores"] if row["method"] != "cpo" and keeps_limit(row)]
        best = max((row["iqm"] for row in prices), default=None)
        for row in tables["scores"]:
            share = "-" if best is None or row["iqm"] is None else f"{row['iqm'] / best:.0%}"
            line = [bare(row["env"]), row["method"], str(row["runs"]), number(row["iqm"]), interval(row)]
            kept = {None: "-", True: "yes", False: "no"}[keeps_limit(row)]
            line += [with_error(row["cost"], row["cost_error"]), kept, share]
            cells.append(line)
    return markdown(cells)


def keeps_limit(row: Row) -> bool | None:
    """Whether the cost is at most the limit, or within one standard error of it; ``None`` where no cost is known."""
    return None if row["cost"] is None else row["cost"] <= LIMIT + (row["cost_error"] or 0.0)


LIMITED = Study(
    "A limit on costs, and prices on them",
    "A step costs 1 where the body moves faster than half of what PPO reached without a limit. CPO is to keep the mean cost of "
    f"an episode below {LIMIT:g}; beside it PPO, which pays a fixed price for each cost; both with their presets. The share is "
    "that of the best return that a price reached within the limit (or within one standard error of it).",
    limit_table,
    {
        env.partition("-")[0].lower(): CompareRequest(
            methods=(
                Method("cpo", "cpo"),
                *(Method(f"ppo, price {price:g}", "ppo", {"cost_coef": price}) for price in PRICES),
            ),
            envs=(env,),
            cost=f"velocity:{velocity}",
        )
        for env, velocity in VELOCITIES.items()
    },
)


def presets_of(request: CompareRequest) -> dict[str, dict[str, Any]]:
    """Return the settings of the presets that a comparison's methods start from, by algorithm and environment."""
    found: dict[str, dict[str, Any]] = {}
    for method, env in itertools.product(request.methods, request.envs):
        if preset := choose(method.algorithm, env, method.preset):
            found.setdefault(method.algorithm, {})[env] = dict(preset.settings)
    return found


def asked_of(request: CompareRequest) -> dict[str, Any]:
    """Return what the methods of a comparison are told, and what a step costs there."""
    return {"cost": request.cost, "methods": {method.name: method.settings for method in request.methods}}


def write_presets(results: Results, folder: Path = PRESETS) -> None:
    """Write what CPO's presets reached, and at what cost, beside their settings, for runs that had the settings of today."""
    reached = {}
    for part, found in results["limit"].items():
        request = LIMITED.parts[part]
        for row in found["tables"]["scores"]:
            known = [row[name] for name in ("iqm", "low", "high", "cost")]
            if row["method"] == "cpo" and None not in known:
                mean, low, high, cost = (round(value, 1) for value in known)
                reached[bare(row["env"])] = (
                    found["presets"]["cpo"][bare(row["env"])],
                    Reached(mean, low, high, row["runs"], request.total_timesteps, cost, request.cost),
                )
    write_reached(folder, "cpo", reached)


# All of them ----------------------------------------------------------------------------------------------------------

STUDIES = {"objectives": OBJECTIVES, "limit": LIMITED}


def stem(*names: str) -> str:
    """Return what the files of a part are called."""
    return "-".join(filter(None, names))


def made(parts: Mapping[str, Found]) -> str:
    """Say when and on what the parts of a study were made: once, where it is the same for all."""
    told = {part: f"{found['about']['date']}, {found['about']['machine']}" for part, found in parts.items()}
    if len(set(told.values())) == 1:
        return f"{next(iter(told.values()))}."
    return "; ".join(f"{part}: {words}" for part, words in told.items()) + "."


def page(results: Results) -> str:
    """Return the tables and pictures of all studies."""
    lines = ["# Comparisons"]
    for name, study in STUDIES.items():
        parts = {part: results[name][part] for part in study.parts if part in results.get(name, {})}
        if not parts:
            continue
        command = f"`.venv/bin/python benchmarks/comparisons.py --only {name}`"
        lines += ["", f"## {study.title}", "", study.words, "", f"{made(parts)} {command}", ""]
        lines += [PROTOCOL, "", *study.table({part: found["tables"] for part, found in parts.items()})]
        for part in parts:
            pictures = {file: file.removesuffix(".png").replace("_", " ") for file in PICTURES}
            lines += ["", *(f"![{words}](comparisons/{stem(name, part, file)})" for file, words in pictures.items())]
    return "\n".join(lines) + "\n"


def keep(results: Results, pictures: Mapping[str, bytes], out: Path) -> None:
    """Write numbers, page and pictures, each file the old one or the new one."""
    (out / "comparisons").mkdir(parents=True, exist_ok=True)
    texts = {"comparisons.json": json.dumps(results, indent=1) + "\n", "comparisons.md": page(results)}
    files = {name: text.encode() for name, text in texts.items()}
    files |= {f"comparisons/{name}": data for name, data in pictures.items()}
    for name, data in files.items():
        write_atomically(out / name, data)


def numbers(comparison: Comparison) -> Tables:
    """Return the tables that are kept, without the places of runs."""
    runs = [{name: row[name] for name in row if name != "path"} for row in comparison.runs]
    return {"runs": runs, **{name: comparison.tables[name] for name in ("scores", "overall", "improvement")}}


def answer(name: str, results: Results, arguments: argparse.Namespace) -> list[str]:
    """Train what a study lacks, and write what each part found; return a line for each run that failed.

    Raises:
        Stopped: a signal came; the same command goes on.
        JumarError: a comparison could not be made.
    """
    failures = []
    for part, request in STUDIES[name].parts.items():
        folder = arguments.runs / stem(name, part)
        asked = replace(request, n_seeds=arguments.seeds, processes=arguments.jobs, out=folder)
        with contextlib.closing(make_progress(sys.stderr)) as progress:
            report = compare(asked, progress)
        results.setdefault(name, {})[part] = {
            "about": circumstances(),
            "presets": presets_of(request),
            "asked": asked_of(request),
            "tables": numbers(report.comparison),
        }
        pictures = {stem(name, part, file): (folder / file).read_bytes() for file in PICTURES}
        keep(results, pictures, arguments.out)
        failures += [
            f"{row['method']} on {row['env']}, seed {row['seed']}: {row['failure']}" for row in report.failures
        ]
    return failures


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", metavar="STUDY", choices=tuple(STUDIES), default=list(STUDIES), help=", ".join(STUDIES)
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each method in each task (default: 5)")
    parser.add_argument("--jobs", type=int, default=None, help="trainings at a time (default: processors)")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where runs are kept (default: runs/comparisons)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write (default: results)")
    parser.add_argument(
        "--presets", action="store_true", help="write what CPO's presets reached into the library's data"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Make the comparisons; return 1 if anything failed, 130 or 143 if it was stopped."""
    arguments = parse(words)
    path, failures = arguments.out / "comparisons.json", []
    results = json.loads(path.read_text()) if path.exists() else {}
    try:
        for name in arguments.only:
            failures += answer(name, results, arguments)
    except Stopped as stop:
        say(str(stop))
        return stop.exit_code
    except JumarError as error:
        failures.append(str(error))
    for reason in failures:
        say(f"failed: {reason}")
    if arguments.presets and "limit" in results:
        write_presets(results)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
