"""What runners cost and bring: speed with slow and fast environments, bytes that travel, and how soon a lost one is replaced.

    python benchmarks/runners.py [--seconds 10] [--out results.json]

Only gathering is timed, with a PPO policy of the usual size: learning is the same with and without runners. Times depend on
what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
from gymnasium import spaces

from jumar.algorithms.registry import algorithm
from jumar.cluster.ray_session import open_session
from jumar.collecting.gatherers import StepLoop
from jumar.envs.host import SerialEnvironments
from jumar.envs.step_costs import GIVEN
from jumar.lanes.crew import Spread, make_crew
from jumar.lanes.executor import LaneExecutor
from jumar.lanes.gatherer import LaneGatherer
from jumar.lanes.ray_crew import RayCrew
from jumar.lanes.records import Barrier, LaneMaking, LaneRecord, Request, Rows
from jumar.lanes.supervisor import Patience
from jumar.policies.policy import make_policy
from jumar.xla.compiler import prepare_compiler

COPIES = 16
STEPS = 32
"""Of a rollout, in each copy."""


class Busy(gym.Env):
    """An environment of 17 observed and 6 acted numbers whose step takes some seconds, of computing or of waiting."""

    observation_space = spaces.Box(-np.inf, np.inf, (17,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (6,), np.float32)

    def __init__(self, seconds: float = 0.005, computes: bool = True) -> None:
        self.seconds, self.computes = seconds, computes

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.normal(size=17), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take up the time, and return noise."""
        if self.computes:
            until = time.thread_time() + self.seconds
            while time.thread_time() < until:
                pass
        elif self.seconds:
            time.sleep(self.seconds)
        self.time += 1
        return self.np_random.normal(size=17), float(action[0]), False, self.time == 1000, {}


def parts_of(make: Callable[[], gym.Env]) -> tuple[LaneMaking, Any, tuple[gym.Space, gym.Space]]:
    """Return what lanes of an environment are made of, and what a new policy acts by."""
    env = make()
    chosen = algorithm("ppo")
    settings = chosen.settings.make({"n_envs": COPIES, "n_steps": STEPS, "batch_size": STEPS * COPIES})
    policy = make_policy(env.observation_space, env.action_space, settings)
    update = chosen.make(settings, policy)
    learner = jax.jit(lambda key: update.init(key, COPIES))(jax.random.PRNGKey(0))
    making = LaneMaking(make, "the environment", update.behaviour, STEPS, GIVEN)
    return (
        making,
        jax.device_get(update.acting(learner, jax.numpy.float32(1.0))),
        (env.observation_space, env.action_space),
    )


class Rollouts:
    """Gathers rollouts one after the other."""

    def __init__(self, gather: Callable[..., Any], making: LaneMaking, acting: Any) -> None:
        self._gather, self._acting, self._behaviour = gather, acting, making.behaviour
        self._carry = self._behaviour.initial_carry(COPIES)
        self._start, self._number = np.ones(COPIES, bool), 0

    def __call__(self) -> None:
        """Gather one."""
        carry = self._behaviour.begin_rollout(self._carry)
        _, self._start, self._carry = self._gather(self._acting, carry, self._start, jax.random.PRNGKey(self._number))
        self._number += 1


def lanes(making: LaneMaking, acting: Any, runners: int) -> tuple[Rollouts, LaneGatherer]:
    gatherer = LaneGatherer(
        lambda: make_crew(making, COPIES, Spread(runners), print),
        lambda: SerialEnvironments([making.make]),
        COPIES,
    )
    gatherer.restart(0, 0)
    return Rollouts(gatherer.gather, making, acting), gatherer


def together(making: LaneMaking, acting: Any) -> tuple[Rollouts, StepLoop]:
    """Return what gathers without lanes."""
    loop = StepLoop(making.behaviour, STEPS)
    environments = SerialEnvironments([making.make] * COPIES)
    loop.begin(environments, *environments.reset(list(range(COPIES))))
    return Rollouts(loop.gather, making, acting), loop


def rate(rollout: Rollouts, seconds: float) -> float:
    """Return steps of all copies per second."""
    rollout()
    rollout()
    begin, n = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        rollout()
        n += 1
    return n * STEPS * COPIES / (time.perf_counter() - begin)


def speeds(make: Callable[[], gym.Env], seconds: float) -> dict[str, float]:
    """Return steps per second, without lanes and by the number of runners."""
    making, acting, _ = parts_of(make)
    found = {}
    for name in ("together", 0, 1, 2):
        rollout, gatherer = together(making, acting) if name == "together" else lanes(making, acting, int(name))
        found[str(name)] = rate(rollout, seconds)
        gatherer.close()
    return found


def sizes() -> dict[str, float]:
    """Return how many bytes travel: for a step of one copy, and for one broadcast of what is acted by."""
    making, acting, _ = parts_of(lambda: Busy(0.0))
    carry = jax.device_get(making.behaviour.initial_carry(COPIES))
    records = tuple(LaneRecord(lane, 0) for lane in range(COPIES))
    request = Request(0, Barrier(0, 0, 0), records, carry, np.ones(COPIES, bool), np.zeros(2, np.uint32))
    rows = LaneExecutor(making).answer(acting, request)
    assert isinstance(rows, Rows)
    return {
        "bytes_per_step": len(pickle.dumps(rows, 5)) / (STEPS * COPIES),
        "bytes_per_request": len(pickle.dumps(request, 5)),
        "bytes_per_broadcast": len(pickle.dumps(acting, 5)),
    }


def recoveries(fault: int, patience: Patience) -> dict[str, float]:
    """Return seconds from a fault of one of two runners until it is noticed, made up for, and until there is a new one."""
    making, acting, _ = parts_of(lambda: Busy(0.005, computes=False))
    crews: list[RayCrew] = []
    noticed: list[float] = []

    def warn(words: str) -> None:
        print(words)
        noticed.append(time.perf_counter())

    def make() -> RayCrew:
        crews.append(RayCrew(making, COPIES, Spread(2), warn, patience))
        return crews[-1]

    gatherer = LaneGatherer(make, lambda: SerialEnvironments([making.make]), COPIES)
    gatherer.restart(0, 0)
    rollout = Rollouts(gatherer.gather, making, acting)
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        rollout()
        times.append(time.perf_counter() - begin)
    process = crews[0]._transport.processes[1]
    os.kill(process, fault)
    begin = time.perf_counter()
    rollout()
    first = time.perf_counter() - begin
    while crews[0]._transport.processes[1] == process or not crews[0]._supervisor.all_at_work:
        rollout()
    anew = time.perf_counter() - begin
    gatherer.close()
    return {
        "usual_rollout_s": min(times),
        "noticed_s": noticed[0] - begin if noticed else float("nan"),
        "rollout_with_fault_s": first,
        "made_anew_s": anew,
    }


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement of speed")
    parser.add_argument("--faults", action="store_true", help="measure losses alone")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    prepare_compiler(print)
    found: dict[str, Any] = {"copies": COPIES, "steps": STEPS, "processors": os.cpu_count(), **sizes()}
    print(json.dumps(found))
    with open_session(None, 2, "the benchmark"):
        for name, make in {
            "computes_5ms": lambda: Busy(0.005),
            "waits_5ms": lambda: Busy(0.005, computes=False),
            "fast": lambda: Busy(0.0, computes=False),
        }.items():
            if arguments.faults:
                break
            found[name] = speeds(make, arguments.seconds)
            print(name, json.dumps(found[name]), flush=True)
        found["killed"] = recoveries(signal.SIGKILL, Patience())
        print("killed", json.dumps(found["killed"]), flush=True)
        found["hung"] = recoveries(signal.SIGSTOP, Patience(silence=10.0, ratio=1e9))
        print("hung, with a deadline of 10 s", json.dumps(found["hung"]), flush=True)
        found["late"] = recoveries(signal.SIGSTOP, Patience(silence=10.0))
        print("hung, asked of another meanwhile", json.dumps(found["late"]), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
