"""The simulated cluster: cases that can be worked out by hand, and laws that hold for any cluster."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
simulated: Any = importlib.import_module("simulated_cluster")
sys.path.remove(str(BENCHMARKS))

FREE = simulated.Cluster(
    4, 100, 1, 50.0, 1_000.0, 0.0, 0.0, machine_runners=2, link=1e3, latency=0.0, call=0.0, spread=0.0, failures=0.0
)
"""Messages cost nothing: gathering takes 2 s, the update 0.4 s."""


def rate(**changes: Any) -> float:
    return simulated.simulate(replace(FREE, **changes), 5).rate


def test_without_failures_and_messages_only_gathering_and_updates_take_time() -> None:
    assert rate() == pytest.approx(400.0 / 2.4)
    assert simulated.bound(FREE) == min(1_000.0, 4 * 50.0)
    assert simulated.bound(replace(FREE, runners=40)) == min(1_000.0, 40 * 50.0)
    assert rate(learner_rate=1e12) == pytest.approx(4 * 50.0)  # runners alone
    assert rate(runner_rate=1e12) == pytest.approx(1_000.0)  # the learner alone


def test_messages_by_hand() -> None:
    # The last of four calls of 0.1 s has left after 0.4 s.
    assert rate(call=0.1) == pytest.approx(400.0 / (0.4 + 2.0 + 0.4))
    assert rate(latency=0.05) == pytest.approx(400.0 / (2.4 + 2 * 0.05))
    # Two machines, 500 bytes each at 1,000 bytes a second: the second has them after 1 s.
    assert rate(weight_bytes=500.0) == pytest.approx(400.0 / (1.0 + 2.0 + 0.4))
    # Four answers of 100 bytes, one after another through the link.
    assert rate(row_bytes=1.0) == pytest.approx(400.0 / (2.0 + 0.4 + 0.4))


def test_shares_are_those_of_the_simulation_and_name_what_is_full() -> None:
    cluster = replace(FREE, call=0.1, weight_bytes=500.0, row_bytes=2.0, latency=0.25)
    assert simulated.shares(cluster) == pytest.approx(
        {"calls": 0.4, "parameters": 1.0, "gathering": 2.0, "rows on the link": 0.8, "update": 0.4, "latency": 0.5}
    )
    assert simulated.fullest(cluster)[:2] == ["parameters", "rows on the link"]
    assert simulated.fullest(replace(cluster, weight_bytes=0.0))[0] == "rows on the link"
    assert simulated.fullest(FREE)[0] == "update"


def test_throughput_stops_growing_where_calls_cost_more_than_they_save() -> None:
    one = replace(FREE, runners=1, rows=1e4, lanes=100.0, runner_rate=100.0, call=0.1)
    assert simulated.divided(one, 50) == replace(one, runners=50, rows=200.0, lanes=2.0)
    number, most = simulated.best(one)
    optimum = (1e4 / (100.0 * 0.1)) ** 0.5  # of N calls and a share of the rows: N c + B / (N r)
    assert number == min(simulated.GRID, key=lambda each: each * 0.1 + 100.0 / each)
    assert abs(number / optimum - 1.0) < 0.25
    assert most == pytest.approx(1e4 / (number * 0.1 + 100.0 / number + 10.0))
    fewer = simulated.enough(one)
    assert fewer < number
    assert simulated.simulate(simulated.divided(one, fewer), 1).rate >= 0.9 * most
    assert simulated.simulate(simulated.divided(one, 10 * number), 1).rate < most


def test_a_death_costs_notice_replay_and_the_work_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = replace(FREE, runners=1, lanes=2, failures=1.0, notice=5.0, episode=25.0)

    class Fates:
        def __init__(self, seed: Any) -> None:
            self.left = [0.5, 1e9]

        def standard_normal(self, size: int) -> Any:
            return simulated.np.zeros(size)

        def exponential(self, mean: float) -> float:
            return self.left.pop(0)

    monkeypatch.setattr(simulated.np.random, "default_rng", Fates)
    seconds, deaths = simulated._run(cluster, 1, 0)
    assert (seconds, deaths) == (pytest.approx(0.5 + 5.0 + 150.0 / 50.0 + 0.1), 1)


@settings(max_examples=40, deadline=None)
@given(
    runners=st.integers(1, 40),
    rows=st.integers(1, 1000),
    runner_rate=st.floats(1.0, 1e4),
    learner_rate=st.floats(10.0, 1e5),
    row_bytes=st.floats(0.0, 1e5),
    weight_bytes=st.floats(0.0, 1e7),
    call=st.floats(0.0, 1e-2),
    spread=st.floats(0.0, 0.5),
    seed=st.integers(0, 9),
)
def test_laws_of_any_cluster(seed: int, **told: Any) -> None:
    cluster = simulated.Cluster(link=1e8, lanes=1, **told)
    calm = simulated.simulate(replace(cluster, spread=0.0), 3, seed)
    assert calm.rate <= simulated.bound(cluster) * (1 + 1e-9)
    rough = simulated.simulate(cluster, 3, seed)
    assert simulated.simulate(cluster, 3, seed) == rough
    often = 0.1 / ((cluster.rows + cluster.episode) / cluster.runner_rate)  # not so often that nobody ever answers
    dying = simulated.simulate(replace(cluster, failures=often), 3, seed)
    assert dying.rate <= rough.rate * (1 + 1e-9)
    assert 0.0 <= dying.lost < 1.0


def test_the_tables_name_each_number_of_runners() -> None:
    for task in simulated.TASKS:
        lines = simulated.table(task, [1, 10], 2, 0)
        assert [line.split("|")[1].strip() for line in lines[4:]] == ["1", "10"]
    assert simulated.weight_bytes(2, 3, 1) == 4 * (9 + 4)
    assert simulated.row_bytes(17, 6) == 2 * 68 + 24 + 12
