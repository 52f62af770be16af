"""Times what every version of Jumar has: an iteration's collecting and update, on the host, or the whole of it.

``profile`` has milliseconds an iteration, medians: ``iteration`` and, where environments are stepped on the host,
``collecting`` and ``update``. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from typing import Any

import jax

import jumar


def timed(function: Any, times: list[float]) -> Any:
    """Return the function; each call adds its milliseconds, to the very end of its computation."""

    def call(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        times.append(1e3 * (time.perf_counter() - start))
        return result

    return call


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = {name: getattr(arguments, name) for name in ("n_envs", "n_steps", "n_epochs", "batch_size")}
    try:
        agent = jumar.PPO(arguments.env, preset="none", **sizes)
    except (TypeError, ValueError):  # from before there were presets
        agent = jumar.PPO(arguments.env, **sizes)
    rollout = arguments.n_envs * arguments.n_steps
    agent.learn(2 * rollout)  # compiles
    runner: Any = agent._training.runner
    times: dict[str, list[float]] = defaultdict(list)
    runner.iterate = timed(runner.iterate, times["iteration"])
    if hasattr(runner, "_gatherer"):
        kind = type(runner._gatherer)  # some versions make a new one for every ``learn``
        kind.gather = timed(kind.gather, times["collecting"])
        runner._learn = timed(runner._learn, times["update"])
    repeats = max(3, arguments.total_timesteps // rollout)
    agent.learn(repeats * rollout)
    found = {name: statistics.median(values) for name, values in times.items()}
    rate = 1e3 * rollout / found["iteration"]
    return {"total_timesteps": repeats * rollout, "steps_per_second": rate, "profile": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True, help="an id with its backend")
    for name in ("--n-envs", "--n-steps", "--n-epochs", "--batch-size", "--total-timesteps"):
        parser.add_argument(name, type=int, required=True)
    print(json.dumps(measure(parser.parse_args())))
