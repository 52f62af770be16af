"""Figures of what methods reach in MuJoCo's tasks, and of the way from a simulator to a robot."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jumar.errors import DamagedFile, UsageError
from jumar.fields import mapping, number, reading, several
from jumar.figures.drawing import BLACK, BLUE, GREEN, ORANGE, RED, frame, label, look, panels
from jumar.figures.figure import Data, Figure
from jumar.lab.texts import NATURAL_SLIDES, TRPO_SLIDES
from jumar.report.statistics import interquartile_mean
from jumar.report.style import TEXT_COLOUR, count_steps, new_figure

# -- the slate of MuJoCo's tasks ---------------------------------------------------------------------------------------

RESULTS = "mujoco_returns.json"
"""Evaluations of ``benchmarks/results/returns.json``, for the tasks and methods of the figure."""
TASKS = {
    "halfcheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "doublependulum": "InvertedDoublePendulum-v5",
    "swimmer": "Swimmer-v5",
    "ant": "Ant-v5",
}
"""Those of the results, in the order of the panels."""
METHODS = ("ppo", "ppo-penalty", "trpo", "npg", "acktr", "a2c", "reinforce")
LENGTH = 1_000_000
"""Environment steps of each run; its evaluations are equally far apart."""


def mujoco_slate(path: Path | None = None) -> Data:
    """Read evaluations, and compute the interquartile mean over the runs of each method in each task.

    Args:
        path: a file like ``benchmarks/results/returns.json``; None: the results that come with Jumar.

    Raises:
        UsageError: there is no such file.
        DamagedFile: it holds no such results.
    """
    data: dict[str, Any] = {"tasks": [], "methods": list(METHODS)}
    for task, runs in _results(path).items():
        data["tasks"].append(TASKS[task])
        for method, values in runs.items():
            points = values.shape[1]
            data[f"{TASKS[task]} {method}"] = interquartile_mean(values, axis=0)
            data[f"{TASKS[task]} {method} steps"] = np.arange(1, points + 1) * (LENGTH / points)
            data[f"{TASKS[task]} {method} runs"] = len(values)
    return data


def _results(path: Path | None) -> dict[str, dict[str, np.ndarray]]:
    """Return the evaluations ``[runs, points]`` of each method by task."""
    if path is not None and not path.is_file():
        raise UsageError(f"--from {path} is not a file; give one like benchmarks/results/returns.json.")
    try:
        text = path.read_text() if path else (resources.files("jumar.figures") / RESULTS).read_text()
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        raise DamagedFile(
            f"{path} is not a JSON file of results; give one like benchmarks/results/returns.json."
        ) from None
    with reading(path or RESULTS):
        tasks = mapping(mapping(content).get("tasks"))
        known = {task: mapping(tasks[task]) for task in TASKS if task in tasks}
        found = {
            task: {method: _evaluations(runs[method]) for method in METHODS if method in runs}
            for task, runs in known.items()
        }
    if not found:
        raise DamagedFile(
            f"{path} has no results of {', '.join(TASKS)}; give one like benchmarks/results/returns.json."
        )
    return found


def _evaluations(runs: Any) -> np.ndarray:
    rows = several(mapping, least=1)(runs)
    table = [several(number(), least=1)(row.get("evaluations")) for row in rows]
    shortest = min(map(len, table))
    return np.array([row[:shortest] for row in table])


def draw_mujoco_slate(data: Data) -> Any:
    """Draw a panel for each task, with the methods named below all of them."""
    tasks, methods = data["tasks"], data["methods"]
    figure, axes = panels(min(3, len(tasks)), 3.6, 2.7, rows=-(-len(tasks) // 3))
    entries: dict[str, Any] = {}
    for axis, task in zip(axes, tasks, strict=False):
        frame(axis, task, "", "return" if axis in axes[::3] else "")
        count_steps(axis)
        for i, method in enumerate(methods):
            if f"{task} {method}" in data:
                [line] = axis.plot(data[f"{task} {method} steps"], data[f"{task} {method}"], linewidth=1.6, **look(i))
                entries.setdefault(method, line)
    for axis in axes[len(tasks) :]:
        axis.set_visible(False)
    for axis in axes[-3:]:
        axis.set_xlabel("environment steps", color=TEXT_COLOUR)
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=len(entries), frameon=False,
        labelcolor=TEXT_COLOUR, handlelength=3.2,
    )  # fmt: skip
    return figure


# -- from a simulator to a robot ---------------------------------------------------------------------------------------

STEPS = (
    ("1  identify", "masses, lengths and friction\nof the robot, and how\nuncertain they are"),
    ("2  train an actuator net", "a network that predicts\ntorques from commands,\nfitted to the real robot"),
    ("3  train the policy", "TRPO in a simulator of both,\nwhose parameters are\nvaried at random"),
    ("4  deploy", "the policy acts on the\nrobot itself, without\nfurther changes"),
)
HANDED_ON = ("a rigid-body model", "a model of the actuators", "a policy")


def robot_pipeline() -> Data:
    """Return the steps, and what each hands on."""
    return {
        "steps": [name for name, _ in STEPS],
        "contents": [text for _, text in STEPS],
        "handed_on": list(HANDED_ON),
        "in_simulation": [False, False, True, False],
    }


def draw_robot_pipeline(data: Data) -> Any:
    """Draw a box for each step; what runs in the simulator is shaded."""
    figure = new_figure(10.4, 2.3)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0.0, 10.4)
    axes.set_ylim(0.0, 2.2)
    width, gap = 2.1, 0.63
    for i, (name, text, simulated) in enumerate(
        zip(data["steps"], data["contents"], data["in_simulation"], strict=True)
    ):
        left, colour = 0.05 + i * (width + gap), (BLUE, GREEN, ORANGE, RED)[i]
        form = {"edgecolor": colour, "facecolor": "#fff4e0" if simulated else "white", "linewidth": 2.0}
        axes.add_patch(_box(left, 0.45, width, 1.35, form))
        axes.text(left + width / 2, 1.57, name, ha="center", va="center", color=BLACK, fontsize=10.5, weight="bold")
        axes.text(left + width / 2, 0.94, text, ha="center", va="center", color=TEXT_COLOUR, fontsize=8.5)
        place = "in simulation" if simulated else "on the robot"
        label(axes, (left + width / 2, 0.2), place, colour)
        if i < len(data["handed_on"]):
            start, end = (left + width + 0.04, 1.12), (left + width + gap - 0.04, 1.12)
            axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.6})
            label(axes, (left + width + gap / 2, 2.0), data["handed_on"][i], BLACK, fontsize=8.5)
    return figure


def _box(left: float, bottom: float, width: float, height: float, form: dict[str, Any]) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.08", **form)


FIGURES = (
    Figure(
        name="mujoco-slate",
        title="returns of seven methods in tasks of MuJoCo",
        source=f"{NATURAL_SLIDES}, the performance of PPO and others; Schulman et al. 2017, Figure 3",
        caption="Returns of deterministic episodes over one million steps: the interquartile mean of 5 seeds for "
        "each method, evaluated 50 times by 10 episodes, from benchmarks/results/returns.json. The paper's slate "
        "also has InvertedPendulum and Reacher, which were not measured; Ant is not in the paper.",
        compute=mujoco_slate,
        draw=draw_mujoco_slate,
        reads="results of one's own, as in benchmarks/results/returns.json",
    ),
    Figure(
        name="robot-pipeline",
        title="from a simulator to a legged robot, in four steps",
        source=f"{TRPO_SLIDES}, application of TRPO: legged robots; Hwangbo et al. 2019, Figure 1",
        caption="How a policy for the robot ANYmal was made: its parameters are identified, a network learns what "
        "its actuators do, the policy is trained in a simulator of both, and is then used on the robot as it is. A "
        "diagram; nothing is computed.",
        compute=robot_pipeline,
        draw=draw_robot_pipeline,
    ),
)
