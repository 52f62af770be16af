"""A simulated cluster of 10, 100 or 1,000 runners: where throughput stops growing, and what is full first.

    .venv/bin/python benchmarks/simulated_cluster.py [--task NAME ...] [--runners N ...] [--iterations N] [--out FILE]
    .venv/bin/python benchmarks/simulated_cluster.py --measure

Nothing is trained. One learner asks N runners for rows, once an iteration: calls leave one after another, and the parameters
go to each machine once, all through the learner's link; runners gather, some slower than others, and some die; the answers come
through the same link; then the learner updates. Copies of the environment, and so the rows of an iteration, belong to the
command and are divided among the runners.
``--measure`` measures on this machine, with a local Ray, what the tasks below assume of calls, parameters and updates.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

NUMBERS = (1, 10, 30, 100, 300, 1000)
GRID = sorted({round(10 ** (k / 12)) for k in range(37)})
"""Numbers of runners among which the best is looked for: 1 to 1,000, in steps of a fifth."""
HOUR = 3600.0
STOPS = 0.9
"""Throughput has stopped growing where it has this share of the most that any number of runners have."""


@dataclass(frozen=True)
class Cluster:
    """What is known of a learner and its runners; seconds, bytes and rows.

    Attributes:
        runners: how many there are.
        rows: that each gathers in an iteration.
        lanes: copies of the environment that each has.
        runner_rate: rows a second of one runner.
        learner_rate: rows a second of the updates.
        row_bytes: of a row on the link.
        weight_bytes: of the parameters, sent once an iteration to each machine.
        machine_runners: runners of one machine.
        link: bytes a second of the learner's link, in each direction.
        latency: of a message.
        call: seconds of the learner's time for each call and its answer.
        spread: standard deviation of the logarithm of gathering times.
        failures: of one runner, a second.
        notice: seconds until a death is noticed and another runner is there.
        episode: rows of each lane's open episode that must be replayed, on average.
    """

    runners: int
    rows: float
    lanes: float
    runner_rate: float
    learner_rate: float
    row_bytes: float
    weight_bytes: float
    machine_runners: int = 16
    link: float = 1.25e9
    latency: float = 1e-4
    call: float = 7e-4
    spread: float = 0.1
    failures: float = 0.0
    notice: float = 5.0
    episode: float = 500.0

    @property
    def machines(self) -> int:
        """How many machines the runners are on."""
        return math.ceil(self.runners / self.machine_runners)


def shares(cluster: Cluster) -> dict[str, float]:
    """Return the seconds that each part takes of an iteration without spread and failures.

    ``gathering`` is what all runners do at once; the others are the learner's alone, and all but ``latency`` grow with the
    number of runners.
    """
    rows = cluster.runners * cluster.rows
    return {
        "calls": cluster.runners * cluster.call,
        "parameters": cluster.machines * cluster.weight_bytes / cluster.link,
        "gathering": cluster.rows / cluster.runner_rate,
        "rows on the link": rows * cluster.row_bytes / cluster.link,
        "update": rows / cluster.learner_rate,
        "latency": 2.0 * cluster.latency,
    }


def bound(cluster: Cluster) -> float:
    """Return the rows a second that no order of the work can exceed: the least that learner, runners, link or calls can do."""
    taken = shares(cluster)
    del taken["latency"]
    return cluster.runners * cluster.rows / max(taken.values())


def fullest(cluster: Cluster) -> list[str]:
    """Return the parts of the learner's own time, the largest first: what is full when runners are added."""
    taken = shares(cluster)
    own = [name for name in taken if name not in ("gathering", "latency")]
    return sorted(own, key=lambda name: -taken[name])


def divided(one: Cluster, runners: int) -> Cluster:
    """Return the cluster of so many runners among which the rows and lanes of one are divided."""
    return replace(one, runners=runners, rows=one.rows / runners, lanes=one.lanes / runners)


def best(one: Cluster) -> tuple[int, float]:
    r"""Return the number of runners that are fastest with the rows of one, and the rows a second; without spread and deaths.

    Beyond it the calls take more time than the division of the work saves: where nothing else matters, from
    :math:`\sqrt{B / (r c)}` runners on, for a batch of B rows, r rows a second of a runner and c seconds a call.
    """
    rates = {number: _calm(divided(one, number)) for number in GRID}
    number = max(rates, key=lambda each: rates[each])
    return number, rates[number]


def enough(one: Cluster, share: float = STOPS) -> int:
    """Return the least number of runners of :data:`GRID` that have this share of what the best number has."""
    _, most = best(one)
    return next(number for number in GRID if _calm(divided(one, number)) >= share * most)


def _calm(cluster: Cluster) -> float:
    return simulate(replace(cluster, spread=0.0, failures=0.0), 1).rate


@dataclass(frozen=True)
class Outcome:
    """What a simulation found.

    Attributes:
        rate: rows a second.
        deaths: of runners.
        lost: share of the time that deaths cost, against the same cluster without them.
    """

    rate: float
    deaths: int
    lost: float


def simulate(cluster: Cluster, iterations: int, seed: int = 0) -> Outcome:
    """Return what a cluster does, by discrete events: each message waits for the link, each iteration for its last answer."""
    seconds, deaths = _run(cluster, iterations, seed)
    calm = seconds if cluster.failures == 0.0 else _run(replace(cluster, failures=0.0), iterations, seed)[0]
    rows = cluster.runners * cluster.rows * iterations
    return Outcome(rows / seconds, deaths, 1.0 - calm / seconds)


def _run(cluster: Cluster, iterations: int, seed: int) -> tuple[float, int]:
    """Return the seconds that iterations take, and how many runners die meanwhile."""
    # Speeds and deaths are drawn apart, so that a cluster with deaths has the speeds of the same one without.
    speeds, fates = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    now, deaths = 0.0, 0
    answered = np.zeros(cluster.runners)
    for _ in range(iterations):
        now, died = _gather(cluster, now, answered, speeds, fates)
        deaths += died
        now += cluster.runners * cluster.rows / cluster.learner_rate
    return now, deaths


def _gather(
    cluster: Cluster, now: float, answered: np.ndarray, speeds: np.random.Generator, fates: np.random.Generator
) -> tuple[float, int]:
    """Return when the last answer is there, and how many runners died since they had answered; note when each answers."""
    scale = np.exp(cluster.spread * speeds.standard_normal(cluster.runners) - cluster.spread**2 / 2.0)
    events = _asked(cluster, now)
    link = now
    ended, deaths = now, 0
    while events:
        time, kind, runner, replayed = heapq.heappop(events)
        if kind == "begins":
            taken = scale[runner] * (cluster.rows + replayed) / cluster.runner_rate
            alive = answered[runner] if replayed == 0.0 else time
            dies = alive + fates.exponential(1.0 / cluster.failures) if cluster.failures else math.inf
            if dies < time + taken:
                deaths += 1
                heapq.heappush(
                    events, (max(dies, time) + cluster.notice, "begins", runner, cluster.lanes * cluster.episode)
                )
            else:
                heapq.heappush(events, (time + taken + cluster.latency, "answers", runner, 0.0))
        else:
            link = max(link, time) + cluster.rows * cluster.row_bytes / cluster.link
            ended = max(ended, link)
            answered[runner] = link
    return ended, deaths


def _asked(cluster: Cluster, now: float) -> list[tuple[float, str, int, float]]:
    """Return when each runner begins: its call has left after those before it, and its machine has the parameters."""
    events = []
    called, link = now, now
    for runner in range(cluster.runners):
        called += cluster.call
        if runner % cluster.machine_runners == 0:
            link = max(link, called) + cluster.weight_bytes / cluster.link
        events.append((max(called, link) + cluster.latency, "begins", runner, 0.0))
    heapq.heapify(events)
    return events


# --- tasks and their table --------------------------------------------------------------------------------------------


def row_bytes(observations: int, actions: int, item: int = 4) -> int:
    """Return the bytes of a row: an observation and its successor, actions, reward and log-probability, and four flags."""
    return 2 * observations * item + 4 * actions + 4 + 4 + 4


def weight_bytes(*layers: int) -> int:
    """Return the bytes of a network of float32 with layers of these widths."""
    return 4 * sum((inner + 1) * outer for inner, outer in pairwise(layers))


SPOT = 0.05 / HOUR
"""Deaths a second of a machine that may be taken away: one in twenty an hour, an assumption on the bad side."""

TASKS = {
    "slow": (
        "a Python environment of 5 ms a step, 1,024 copies, 64 steps each",
        Cluster(
            1, 65_536, 1_024, 200.0, 32_500.0, row_bytes(17, 6), weight_bytes(17, 64, 64, 6) + 4 * 6, episode=200.0
        ),
    ),
    "half-cheetah": (
        "Gymnasium's HalfCheetah, 1,024 copies, 64 steps each",
        Cluster(
            1, 65_536, 1_024, 5_000.0, 32_500.0, row_bytes(17, 6), weight_bytes(17, 64, 64, 6) + 4 * 6, episode=500.0
        ),
    ),
    "images": (
        "images of 84 x 84 x 4 bytes, 1,024 copies, 128 steps each, and a GPU that learns 20,000 rows a second",
        Cluster(1, 131_072, 1_024, 500.0, 20_000.0, row_bytes(84 * 84 * 4, 1, 1), 6.8e6, episode=1_000.0),
    ),
}
"""By name: what it is in words, and a single runner of it.

32,500 rows a second is what PPO learns on two cores (2,048 rows in 63 ms, `benchmarks/results/speed.md`); 0.7 ms a call is what
Ray took on a busy machine (``--measure``); a step of HalfCheetah took 0.1 ms there, and acting in
a lane takes as long (`docs/runners.md`). Assumed are a link of 10 Gbit/s, and what images and a GPU do.
"""


def table(task: str, numbers: Sequence[int], iterations: int, seed: int) -> list[str]:
    """Return a Markdown table of one task over numbers of runners."""
    words, one = TASKS[task]
    number, most = best(one)
    lines = [
        f"**{words[:1].upper()}{words[1:]}.** The most is {_number(most)} rows a second, with {number:,} runners; "
        f"{enough(one):,} have {100 * STOPS:.0f} % of it. The learner alone: {_number(one.learner_rate)}.",
        "",
        "| runners | rows/s | rows/s, some die | deaths an hour | time lost to them | the learner's own time, an iteration |",
        "| ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for number in numbers:
        cluster = divided(one, number)
        calm, spot = (simulate(replace(cluster, failures=rate), iterations, seed) for rate in (0.0, SPOT))
        taken = shares(cluster)
        full = ", ".join(f"{name} {1e3 * taken[name]:,.0f} ms" for name in fullest(cluster)[:3])
        lines.append(
            f"| {number:,} | {_number(calm.rate)} | {_number(spot.rate)} | {SPOT * HOUR * number:.1f} | "
            f"{100 * spot.lost:.1f} % "
            f"| {full} |"
        )
    return lines


def _number(value: float) -> str:
    """Return a number to three digits."""
    return f"{float(f'{value:.3g}'):,.0f}"


# --- measuring --------------------------------------------------------------------------------------------------------


def measured() -> dict[str, float]:
    """Return what calls and parameters cost with a local Ray, and a step of HalfCheetah: seconds and bytes.

    Steps are processor time; calls are the fastest tenth of many, as others may be at work on the machine.
    """
    import time

    import gymnasium

    from jumar.cluster.ray_session import open_session

    with open_session(None, 2, "--measure") as session:
        ray = session.ray

        class Echo:
            def answer(self, rows: int, parameters: object) -> bytes:
                return bytes(rows)

        actors = [ray.remote(num_cpus=1, max_restarts=0)(Echo).remote() for _ in range(2)]
        parameters = np.zeros(weight_bytes(17, 64, 64, 6) // 4, np.float32)
        ray.get([actor.answer.remote(0, None) for actor in actors])

        def timed(rows: int, with_parameters: bool, times: int = 200) -> float:
            found = []
            for _ in range(times):
                began = time.perf_counter()
                sent = ray.put(parameters) if with_parameters else None
                ray.get([actor.answer.remote(rows, sent) for actor in actors])
                found.append((time.perf_counter() - began) / len(actors))
            return float(np.quantile(found, 0.1))

        environment = gymnasium.make("HalfCheetah-v5")
        environment.reset(seed=0)
        began = time.process_time()
        for _ in range(2000):
            environment.step(environment.action_space.sample())
        step = (time.process_time() - began) / 2000
        size = 512 * row_bytes(17, 6)
        return {
            "call_s": timed(0, False),
            "call_with_parameters_s": timed(0, True),
            "call_with_512_rows_s": timed(size, False),
            "parameter_bytes": parameters.nbytes,
            "rows_bytes": size,
            "half_cheetah_step_s": step,
        }


def main() -> None:
    """Print the tables, or what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--runners", nargs="+", type=int, default=list(NUMBERS))
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the tables to this file, too")
    parser.add_argument("--measure", action="store_true", help="measure calls and parameters with a local Ray instead")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(), indent=1))
        return
    parts = (table(task, arguments.runners, arguments.iterations, arguments.seed) for task in arguments.task)
    text = "\n\n".join("\n".join(part) for part in parts) + "\n"
    print(text, end="")
    if arguments.out is not None:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
