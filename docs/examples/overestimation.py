"""How much the critics of DDPG and TD3 promise above what comes of it, from the runs of a comparison.

Run it as ``python docs/examples/overestimation.py COMPARISON docs/figures/overestimation.svg``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

COLOURS = {"ddpg": "#d55e00", "td3": "#0072b2"}
QUANTITIES = {
    "train/q_overestimation": "Q - G, mean over steps",
    "train/q_mean": "Q, mean over the memory",
    "rollout/ep_rew_mean": "return of training episodes",
}


def read(comparison: Path, algorithm: str) -> dict[str, np.ndarray]:
    """Return the quantities of all runs of an algorithm, ``[seeds, lines]``, and the steps of the lines."""
    runs = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((comparison / "runs").glob(f"{algorithm}*/*/*/metrics.jsonl"))
    ]
    names = ("time/total_timesteps", *QUANTITIES)
    values: dict[str, Any] = {name: [[line.get(name, np.nan) for line in run] for run in runs] for name in names}
    return {name: np.array(x, float) for name, x in values.items()}


def main(comparison: str, path: str) -> None:
    """Draw the figure: the median over seeds of each quantity, and its range."""
    figure, axes = plt.subplots(1, len(QUANTITIES), figsize=(9, 2.8), layout="constrained")
    for algorithm, colour in COLOURS.items():
        found = read(Path(comparison), algorithm)
        steps = found["time/total_timesteps"][0]
        for axis, (name, label) in zip(axes, QUANTITIES.items(), strict=True):
            known = ~np.all(np.isnan(found[name]), axis=0)
            values = found[name][:, known]
            axis.plot(steps[known], np.nanmedian(values, axis=0), color=colour, label=algorithm.upper())
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            axis.fill_between(steps[known], low, high, color=colour, alpha=0.2, linewidth=0)
            axis.set_title(label, fontsize="medium")
            axis.set_xlabel("steps")
            last = np.nanmean(values[:, -10:], axis=1)
            print(f"{algorithm} {name}, last tenth by seed: {' '.join(f'{x:.1f}' for x in last)}")
    axes[0].axhline(0.0, color="black", linewidth=0.8)
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
