"""An update in two halves: the same as the whole, each half with its own work only, where policy and critic move apart."""

from __future__ import annotations

import threading
import time
from typing import Any

import jax
import numpy as np
import pytest
from updates import CHOICES, CONTINUOUS, experience, first_learner, flat, make_update

from jumar.collecting.halves import Halves
from jumar.collecting.host import HostRunner
from jumar.xla.timing import CompileClock


def whole(update: Any) -> Any:
    """Return an update as a runner has it, with two things more that come of a rollout."""

    def learn(learner: Any, trajectory: Any, key: Any) -> Any:
        return *update.improve(learner, trajectory, 1.0, key), trajectory.rewards, ()

    return learn


@pytest.mark.parametrize(
    ("name", "action_space", "settings"),
    [
        ("trpo", CONTINUOUS, {"normalize_observations": True, "normalize_rewards": True}),
        pytest.param(
            "cpo", CHOICES, {"cost_limit": 1.0, "recurrent": "gru", "recurrent_size": 4}, marks=pytest.mark.slow
        ),
        ("ppo", CONTINUOUS, {"joint_gradient": False, "n_epochs": 3, "batch_size": 8}),
    ],
    ids=["trpo", "cpo, recurrent", "ppo"],
)
def test_the_halves_are_the_whole(name: str, action_space: Any, settings: dict[str, Any]) -> None:
    update = make_update(action_space=action_space, name=name, **settings)
    assert update.apart
    learner = first_learner(update)
    trajectory = experience(update, learner)
    arguments = learner, trajectory, jax.random.PRNGKey(3)
    expected, found = jax.jit(whole(update))(*arguments), Halves(whole(update))(*arguments)
    assert jax.tree.structure(found[0]) == jax.tree.structure(expected[0])
    np.testing.assert_allclose(flat(found[0]), flat(expected[0]), rtol=1e-5, atol=1e-6)
    assert found[1].keys() == expected[1].keys()
    assert bool(found[1]["finite"])
    for key, value in expected[1].items():
        np.testing.assert_allclose(found[1][key], value, rtol=1e-4, atol=1e-5, err_msg=key)
    np.testing.assert_array_equal(found[2], trajectory.rewards)


@pytest.mark.parametrize(("name", "settings"), [("trpo", {}), ("ppo", {"joint_gradient": False})])
def test_neither_half_does_the_work_of_the_other(name: str, settings: dict[str, Any]) -> None:
    with jax.default_device(jax.devices("cpu")[0]):  # a GPU's programs call libraries, where no products are seen
        update = make_update(name=name, **settings)
        learner = first_learner(update)
        arguments = learner, experience(update, learner), jax.random.PRNGKey(3)
        halves = Halves(whole(update))
        programs = (jax.jit(whole(update)), halves._policys, halves._critics)
        products, policys, critics = (str(f.lower(*arguments).compile().as_text()).count(" dot(") for f in programs)
    assert 0 < critics < policys < products
    assert policys + critics < 1.3 * products, "values are computed twice, and nothing else"


@pytest.mark.parametrize("name", ["ppo", "a2c", "ispg"])
def test_what_moves_together_stays_together(name: str) -> None:
    runner = HostRunner(make_update(name=name), lambda: pytest.fail("nothing is made yet"), 8)
    assert not isinstance(runner._learn, Halves)


def test_what_is_not_finite_in_either_half_is_told() -> None:
    def learn(learner: Any, policys: Any, critics: Any) -> Any:
        parameters = {"policy": policys, "critic": critics}
        record = {"value_loss": critics, "entropy": policys, "finite": False}
        return learner._replace(parameters=parameters, solver={"policy": (), "critic": ()}), record, (), ()

    update = make_update(name="trpo")
    learner, halves = first_learner(update), Halves(learn)
    for policys, critics in ((1.0, 2.0), (np.nan, 2.0), (1.0, np.nan)):
        _, record, *_ = halves(learner, policys, critics)
        assert bool(record["finite"]) == np.isfinite(policys + critics)
        assert (record["entropy"], record["value_loss"]) == pytest.approx((policys, critics), nan_ok=True)


def test_a_failure_in_the_critics_thread_is_raised() -> None:
    def learn(learner: Any, failing: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("no critic")
        return learner, {"finite": True}, (), ()

    update = make_update(name="trpo")
    with pytest.raises(ValueError, match="no critic"):
        Halves(learn)(first_learner(update), 1.0)


def test_seconds_in_which_two_programs_compile_count_once() -> None:
    clock = CompileClock()
    event = "/jax/core/compile/backend_compile_duration"
    start = time.perf_counter()
    clock._hear(event, 0.3)
    time.sleep(0.01)
    clock._hear(event, 0.2)
    clock._hear("something else", 100.0)
    clock._hear(event, 0.25)
    assert 0.3 <= clock.seconds <= 0.3 + time.perf_counter() - start
