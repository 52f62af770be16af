"""What a step costs: read the same way on every backend, and refused in words where it cannot be had."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import faulty
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from probes import Probe, one, show_time

from jumar.envs.compiled import Costed, reset_batch, step_batch, traced_info
from jumar.envs.host import HostEnvironments, SerialEnvironments
from jumar.envs.pool import EnvPoolEnvironments
from jumar.envs.sources import source_of
from jumar.envs.step_costs import GIVEN, Cost, VelocityCost, parse_cost
from jumar.envs.vector import VectorAdapter
from jumar.envs.workers import WorkerEnvironments
from jumar.errors import EnvironmentFault, UsageError
from jumar.training.assembly import check_cost

FAST = VelocityCost(2.5)


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_step_costs_1_where_the_body_is_faster_than_the_limit_and_is_no_number_where_the_velocity_is_none(
    xp: Any,
) -> None:
    velocities = xp.asarray([-9.0, 2.5, 2.6, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(FAST(velocities, xp), [0.0, 0.0, 1.0, np.nan, np.nan, np.nan])


@pytest.mark.parametrize(
    "text", ["velocity:2.5", "velocity:0", "velocity:-1", "velocity:1e-07", "velocity:0.1234567891"]
)
def test_what_is_typed_is_kept(text: str) -> None:
    assert parse_cost(text).text == text
    assert parse_cost(parse_cost(text).text) == parse_cost(text)


def test_the_environment_s_own_cost_is_nothing_typed() -> None:
    assert parse_cost(None) is GIVEN
    assert GIVEN.text is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("velocity", "has no limit; write it as velocity:2.5"),
        ("velocity:", "has no limit"),
        ("velocity:fast", "has no limit"),
        ("velocity:nan", "has no limit"),
        ("velocity:inf", "has no limit"),
        ("speed:2", "unknown cost 'speed'; known: velocity:V"),
        ("velocty:2", "did you mean velocity:V?"),
        ("", "unknown cost ''"),
    ],
)
def test_what_is_no_cost_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        parse_cost(text)


def serial(make: Callable[[], Any], cost: Cost) -> HostEnvironments:
    return SerialEnvironments([make] * 3, "runner", cost=cost)


def vector(mode: AutoresetMode) -> Callable[..., HostEnvironments]:
    return lambda make, cost: VectorAdapter(SyncVectorEnv([make] * 3, autoreset_mode=mode), "runner", cost=cost)


def workers(make: Callable[[], Any], cost: Cost) -> HostEnvironments:
    return WorkerEnvironments([make] * 3, 2, "runner", cost=cost)


BACKENDS = [serial, workers, *map(vector, AutoresetMode)]
NAMES = ["serial", "workers", *(mode.name for mode in AutoresetMode)]


@pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)
def test_every_host_backend_reads_the_velocity_of_experience(backend: Any) -> None:
    """Episodes have four steps, in which the velocities are 1, 2, 3 and 4."""
    envs = backend(faulty.Runner, FAST)
    try:
        envs.reset([1, 2, 3])
        steps = [envs.step(np.ones(3, int)) for _ in range(12)]
    finally:
        envs.close()
    for i in range(3):
        costs = [step.costs[i] for step in steps if step.valid[i]]
        assert costs == ([0.0, 0.0, 1.0, 1.0] * 3)[: len(costs)]
        assert len(costs) > 8


@pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)
def test_an_environment_without_a_velocity_is_refused_at_its_first_step(backend: Any) -> None:
    envs = backend(faulty.Walk, FAST)
    try:
        envs.reset([1, 2, 3])
        with pytest.raises(UsageError, match=r"runner gives no info\['x_velocity'\], which the cost is made of"):
            envs.step(np.ones(3, int))
    finally:
        envs.close()


@pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)
def test_a_velocity_that_is_no_number_is_named(backend: Any) -> None:
    envs = backend(lambda: faulty.Runner(np.nan), FAST)
    try:
        envs.reset([1, 2, 3])
        with pytest.raises(EnvironmentFault, match="environment 0 of runner gave an x_velocity at step 1 that is nan"):
            envs.step(np.ones(3, int))
    finally:
        envs.close()


def test_a_pool_reads_the_velocity_and_says_before_it_is_made_that_a_task_has_none() -> None:
    envs = EnvPoolEnvironments("HalfCheetah-v5", 2, num_threads=1, cost=VelocityCost(0.0))
    envs.reset([1, 2])
    velocities, costs = [], []
    for i in range(20):
        step = envs.step(np.full((2, 6), (-1.0) ** (i // 4)))
        velocities.append(envs.last_info["x_velocity"])
        costs.append(step.costs)
    envs.close()
    assert len(np.unique(costs)) == 2
    np.testing.assert_array_equal(costs, np.greater(velocities, 0.0))
    with pytest.raises(UsageError, match=r"envpool/CartPole-v1 gives no info\['x_velocity'\]"):
        EnvPoolEnvironments("CartPole-v1", 1, cost=FAST)
    assert EnvPoolEnvironments("CartPole-v1", 1).never_costs


def test_a_compiled_environment_s_info_is_held_against_the_limit() -> None:
    probe = Probe(one, show_time, length=4, info=lambda observation, action, time: {"x_velocity": 1.0 + time})
    env = Costed(probe, FAST, "probe")
    assert traced_info(env, "probe") == {"x_velocity": (), "cost": ()}
    states, _ = reset_batch(env, env.params, jax.random.PRNGKey(0), 2)
    costs = []
    for t in range(8):
        states, step = step_batch(env, env.params, jax.random.PRNGKey(t), states, jnp.zeros(2, jnp.int32))
        costs.append(step.costs)
    np.testing.assert_array_equal(costs, np.array([[0.0, 0.0, 1.0, 1.0] * 2] * 2).T)
    with pytest.raises(UsageError, match=r"probe gives no info\['x_velocity'\]"):
        Costed(Probe(one), FAST, "probe")


def test_a_task_without_a_velocity_is_refused_before_anything_is_trained() -> None:
    def warn(words: str) -> None:
        raise AssertionError(words)

    check_cost(source_of(faulty.Runner, cost=FAST), warn)
    with pytest.raises(UsageError, match=r"Walk gives no info\['x_velocity'\]"):
        check_cost(source_of(faulty.Walk, cost=FAST), warn)
    check_cost(source_of(faulty.Walk()), warn)
    check_cost(source_of(faulty.Walk(), cost=FAST), warn)  # a live object is left alone
    # What else goes wrong there is not this check's business.
    check_cost(source_of(lambda: faulty.Faulty("raise", 1), cost=FAST), warn)
