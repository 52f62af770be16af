"""Take the evaluations that `jumar figure mujoco-slate` shows from the results of `benchmarks/returns.py`."""

from __future__ import annotations

import json
from pathlib import Path

from jumar.figures import tasks

RETURNS = Path(__file__).parent / "results" / "returns.json"
SHIPPED = Path(tasks.__file__).parent / tasks.RESULTS


def main() -> None:
    results = json.loads(RETURNS.read_text())
    kept = {
        task: {
            method: [{"seed": run["seed"], "evaluations": [round(x, 1) for x in run["evaluations"]]} for run in runs]
            for method, runs in results["tasks"][task].items()
            if method in tasks.METHODS
        }
        for task in tasks.TASKS
        if task in results["tasks"]
    }
    text = json.dumps({"about": results["about"], "tasks": kept}, separators=(",", ":"))
    SHIPPED.write_text(text.replace('"seed"', '\n"seed"') + "\n")


if __name__ == "__main__":
    main()
