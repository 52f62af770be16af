"""Write what rliable says of some scores to ``data/rliable.json``, for the tests to hold Jumar's statistics against.

    python -m venv rliable && rliable/bin/pip install rliable==1.2.0 "pandas<3"
    rliable/bin/python tests/report/make_rliable.py

rliable is not installed for the tests themselves: what it is built on does not import beside the pandas of the lock files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

RESAMPLES = 50_000
DATA = Path(__file__).parent / "data" / "rliable.json"


def scores() -> dict[str, np.ndarray]:
    """Return scores of three methods in four tasks, ten runs each; some are equal."""
    rng = np.random.default_rng(7)
    drawn = {
        "first": rng.normal([0.2, 0.5, 0.8, 1.2], [0.1, 0.3, 0.2, 0.5], (10, 4)),
        "second": rng.gamma(2.0, 0.3, (10, 4)),
        "third": np.minimum(rng.exponential(0.7, (10, 4)), 1.0),
    }
    return {name: np.round(x, 3) for name, x in drawn.items()}


def main() -> None:
    """Ask rliable."""
    from rliable import library, metrics  # pyright: ignore[reportMissingImports]

    tables = scores()
    points, intervals = library.get_interval_estimates(
        tables, lambda x: np.array([metrics.aggregate_iqm(x), metrics.aggregate_mean(x)]), reps=RESAMPLES
    )
    pairs = {"first,second": (tables["first"], tables["second"]), "third,second": (tables["third"], tables["second"])}
    wins, win_intervals = library.get_interval_estimates(pairs, metrics.probability_of_improvement, reps=5_000)
    thresholds = np.linspace(-0.1, 1.5, 17)
    profiles, bands = library.create_performance_profile(tables, thresholds, reps=5_000)
    told: dict[str, Any] = {
        "scores": {name: x.tolist() for name, x in tables.items()},
        "iqm and mean": {name: points[name].tolist() for name in tables},
        "intervals": {name: intervals[name].tolist() for name in tables},
        "improvement": {name: float(wins[name]) for name in pairs},
        "improvement intervals": {name: np.ravel(win_intervals[name]).tolist() for name in pairs},
        "thresholds": thresholds.tolist(),
        "profiles": {name: profiles[name].tolist() for name in tables},
        "profile bands": {name: bands[name].tolist() for name in tables},
    }
    DATA.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
