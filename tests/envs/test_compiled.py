"""The convention of compiled environments: its check, batched stepping with autoreset, frame stacking, loading."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from jumar.envs.classic_control import ENVIRONMENTS, CartPole, Pendulum
from jumar.envs.compiled import CompiledStep, FrameStack, reset_batch, step_batch
from jumar.envs.compiled_check import check_compiled_environment, load_user_environment
from jumar.envs.user_code import import_optional
from jumar.errors import UsageError
from jumar.policies.actions import narrow_dtype

KEY = jax.random.PRNGKey(0)


class ClockState(NamedTuple):
    time: jax.Array
    start: jax.Array


@dataclasses.dataclass(frozen=True)
class Clock:
    """Observes (start, time). Action 1 terminates; ``limit`` steps truncate; the start is drawn anew at each reset."""

    limit: int = 3
    with_cost: bool = False
    params: Any = 1.0  # the reward

    @property
    def observation_space(self) -> spaces.Space:
        return spaces.Dict({"start": spaces.Box(0, 1, (), np.float32), "time": spaces.Discrete(100)})

    @property
    def action_space(self) -> spaces.Space:
        return spaces.Discrete(2)

    def reset(self, key: jax.Array, params: Any) -> Any:
        state = ClockState(jnp.zeros((), jnp.int32), jax.random.uniform(key, (), jnp.float32))
        return state, self.observe(state)

    def step(self, key: jax.Array, state: ClockState, action: jax.Array, params: Any) -> Any:
        state = state._replace(time=state.time + 1)
        info = {"cost": state.time, "note": "not an array"} if self.with_cost else {}
        return state, self.observe(state), params, action == 1, state.time >= self.limit, info

    def observe(self, state: ClockState) -> Any:
        return {"start": state.start, "time": state.time}


class Wording(Clock):
    """Has something else than a number as its cost."""

    def step(self, key: jax.Array, state: ClockState, action: jax.Array, params: Any) -> Any:
        *rest, _ = super().step(key, state, action, params)
        return *rest, {"cost": "dear"}


@functools.partial(jax.jit, static_argnums=0)
def rollout(env: Any, key: jax.Array, actions: jax.Array) -> tuple[Any, CompiledStep]:
    """Reset, then step through actions (T, N, ...); return the first observations and T stacked steps."""
    reset_key, step_key = jax.random.split(key)
    states, first = reset_batch(env, env.params, reset_key, actions.shape[1])

    def body(states: Any, inputs: Any) -> Any:
        return step_batch(env, env.params, inputs[0], states, inputs[1])

    return first, jax.lax.scan(body, states, (jax.random.split(step_key, len(actions)), actions))[1]


def run(env: Any, actions: np.ndarray) -> tuple[Any, CompiledStep]:
    return rollout(env, KEY, jnp.asarray(actions))


def test_time_limits_truncate_and_ends_terminate_and_never_both() -> None:
    # Environment 0 runs into the limit of 3; 1 ends at its second step; 2 does both at once.
    actions = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    _, steps = run(Clock(), actions)
    np.testing.assert_array_equal(steps.truncated, [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(steps.terminated, [[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert steps.rewards.dtype == jnp.float32
    np.testing.assert_array_equal(steps.rewards, np.ones((4, 3)))


def test_successors_are_the_true_ones_and_observations_the_reset_ones() -> None:
    actions = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    first, steps = run(Clock(), actions)
    np.testing.assert_array_equal(steps.successors["time"], [[1, 1, 1], [2, 2, 2], [3, 1, 3], [1, 2, 1]])
    np.testing.assert_array_equal(steps.observations["time"], [[1, 1, 1], [2, 0, 2], [0, 1, 0], [1, 2, 1]])
    ended = np.asarray(steps.terminated | steps.truncated)
    start, successor_start = np.asarray(steps.observations["start"]), np.asarray(steps.successors["start"])
    np.testing.assert_array_equal(start[~ended], successor_start[~ended])
    assert np.all(start[ended] != successor_start[ended])
    np.testing.assert_array_equal(first["start"], successor_start[0])


def test_every_reset_draws_a_new_initial_state() -> None:
    first, steps = run(Clock(), np.ones((50, 4), np.int32))
    starts = np.concatenate([np.asarray(first["start"])[None], np.asarray(steps.observations["start"])])
    assert len(np.unique(starts)) == starts.size


def test_an_environments_stream_depends_on_its_own_index_and_actions_alone() -> None:
    actions = np.random.default_rng(0).integers(0, 2, size=(30, 7))
    _, many = run(Clock(), actions)
    few_actions = actions[:, :3].copy()
    few_actions[:, 2] = 0  # a neighbour that behaves otherwise
    _, few = run(Clock(), few_actions)
    for left, right in zip(jax.tree.leaves(many), jax.tree.leaves(few), strict=True):
        np.testing.assert_array_equal(left[:, :2], right[:, :2])


def test_environments_and_steps_have_different_keys() -> None:
    states, _ = reset_batch(CartPole(), CartPole().params, KEY, 100)
    assert len(np.unique(np.asarray(states.x))) == 100

    @dataclasses.dataclass(frozen=True)
    class Noise(Clock):
        def step(self, key: jax.Array, state: ClockState, action: jax.Array, params: Any) -> Any:
            new = state._replace(start=jax.random.uniform(key, (), jnp.float32))
            return new, self.observe(new), 0.0, action == 1, action == 1, {}

    _, steps = run(Noise(), np.zeros((20, 5), np.int32))
    assert len(np.unique(np.asarray(steps.successors["start"]))) == 100
    # A step's noise and the reset after it are independent too.
    _, ended = run(Noise(), np.ones((20, 5), np.int32))
    assert np.all(np.asarray(ended.successors["start"]) != np.asarray(ended.observations["start"]))


def test_costs_are_passed_on_and_other_infos_ignored() -> None:
    _, without = run(Clock(), np.zeros((2, 3), np.int32))
    assert without.costs is None
    _, steps = run(Clock(with_cost=True), np.zeros((2, 3), np.int32))
    _, worded = run(Wording(), np.zeros((2, 3), np.int32))
    assert worded.costs is None
    assert steps.costs is not None
    assert steps.costs.dtype == jnp.float32
    np.testing.assert_array_equal(steps.costs, [[1, 1, 1], [2, 2, 2]])


def test_one_more_vmap_over_seeds_equals_single_seeds() -> None:
    actions = np.random.default_rng(1).integers(0, 2, size=(20, 4))
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(rollout, in_axes=(None, 0, None))(Clock(), keys, jnp.asarray(actions))
    for i, key in enumerate(keys):
        alone = rollout(Clock(), key, jnp.asarray(actions))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone)


def test_a_second_step_does_not_compile_again() -> None:
    env = CartPole()
    traces = []

    @jax.jit
    def step(key: jax.Array, states: Any, actions: jax.Array) -> Any:
        traces.append(1)
        return step_batch(env, env.params, key, states, actions)

    states, _ = reset_batch(env, env.params, KEY, 4)
    for _ in range(3):
        states, _ = step(KEY, states, jnp.zeros(4, jnp.int32))
    assert len(traces) == 1


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_types_are_the_same_with_64_bit_mode_on(name: str) -> None:
    env = ENVIRONMENTS[name]()
    actions = jax.ShapeDtypeStruct((1, 4, *(env.action_space.shape or ())), narrow_dtype(env.action_space.dtype))
    narrow = jax.eval_shape(lambda actions: rollout(env, KEY, actions), actions)
    with jax.enable_x64(True):
        assert jax.eval_shape(lambda actions: rollout(env, KEY, actions), actions) == narrow


def test_observations_of_wide_spaces_are_narrowed() -> None:
    assert narrow_dtype(np.float64) == np.float32
    assert narrow_dtype(np.int64) == np.int32
    assert narrow_dtype(np.uint8) == np.uint8
    assert narrow_dtype(np.int8) == np.int8

    @dataclasses.dataclass(frozen=True)
    class Wide(Clock):
        def observe(self, state: ClockState) -> Any:
            return {"start": state.start.astype(float), "time": state.time.astype(int)}

    with jax.enable_x64(True):
        first, steps = run(Wide(), np.zeros((2, 3), np.int32))
    for observation in (first, steps.observations, steps.successors):
        assert observation["start"].dtype == jnp.float32
        assert observation["time"].dtype == jnp.int32
    assert steps.rewards.dtype == jnp.float32


def test_frames_are_stacked_oldest_first_and_refilled_at_a_reset() -> None:
    env = FrameStack(Pendulum(max_episode_steps=4), 3)
    plain = Pendulum(max_episode_steps=4)
    check_compiled_environment(env, "stacked")
    actions = np.ones((6, 2, 1), np.float32)
    first, steps = run(env, actions)
    plain_first, plain_steps = run(plain, actions)
    o = np.concatenate([np.asarray(plain_first)[None], np.asarray(plain_steps.successors)])
    np.testing.assert_array_equal(first[0], [o[0, 0]] * 3)
    np.testing.assert_array_equal(steps.observations[0, 0], [o[0, 0], o[0, 0], o[1, 0]])
    np.testing.assert_array_equal(steps.observations[2, 0], [o[1, 0], o[2, 0], o[3, 0]])
    np.testing.assert_array_equal(steps.successors[3, 0], [o[2, 0], o[3, 0], o[4, 0]])
    assert steps.truncated[3].all()
    np.testing.assert_array_equal(steps.observations[3, 0], [np.asarray(plain_steps.observations)[3, 0]] * 3)


def test_frame_stack_has_gymnasiums_space_and_takes_boxes_only() -> None:
    import gymnasium

    reference = gymnasium.wrappers.FrameStackObservation(gymnasium.make("Pendulum-v1"), 4)
    assert FrameStack(Pendulum(), 4).observation_space == reference.observation_space
    with pytest.raises(UsageError, match="Box observations only"):
        FrameStack(Clock(), 2)
    with pytest.raises(UsageError, match="frame_stack=0"):
        FrameStack(Pendulum(), 0)


class Faulty(Clock):
    """A clock whose parts can be replaced by wrong ones."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        object.__setattr__(self, "changes", changes)

    def reset(self, key: jax.Array, params: Any) -> Any:
        state, observation = super().reset(key, params)
        return self.changes.get("reset", lambda *result: result)(state, observation)  # type: ignore[attr-defined]

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Any) -> Any:
        result = super().step(key, state, action, params)
        return self.changes.get("step", lambda *result: result)(*result)  # type: ignore[attr-defined]


class Pixels:
    """A clock that says that it shows pixels."""

    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    params = ()

    def __init__(self, shape: tuple[int, ...] = (8, 8, 3), dtype: Any = jnp.uint8, step_shape: Any = None) -> None:
        self.shape, self.dtype, self.step_shape = shape, dtype, step_shape or shape

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.zeros(()), jnp.zeros(self.shape, self.dtype)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        false = jnp.zeros((), bool)
        return state + action[1], jnp.zeros(self.step_shape, self.dtype), action[0], false, false, {}


class Bandit:
    """A one-step task with no state at all."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Discrete(2)
    params = 0.5

    def reset(self, key: Any, params: Any) -> Any:
        return (), jnp.zeros((), jnp.int32)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return (), jnp.zeros((), jnp.int32), params * action, True, False, {}


def test_an_environment_may_have_no_state_and_give_python_values() -> None:
    check_compiled_environment(Bandit(), "bandit")
    _, steps = run(Bandit(), np.array([[0, 1], [1, 1]]))
    np.testing.assert_array_equal(steps.rewards, [[0.0, 0.5], [0.5, 0.5]])
    assert steps.terminated.all()


def test_good_environments_pass_the_check() -> None:
    check_compiled_environment(Clock(), "clock")
    check_compiled_environment(Clock(with_cost=True), "clock")
    check_compiled_environment(Faulty(), "clock")
    check_compiled_environment(Pixels(), "pixels")


def change_step(index: int, value: Any) -> Faulty:
    def step(*result: Any) -> Any:
        return (*result[:index], value(result[index]) if callable(value) else value, *result[index + 1 :])

    return Faulty(step=step)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Pixels((8, 8, 1)), r"reset returns an observation of shape \(8, 8, 1\); its space has shape \(8, 8, 3\)"),
        (Pixels(step_shape=(4, 4)), r"step returns an observation of shape \(4, 4\)"),
        (Pixels(dtype=jnp.float32), "reset returns an observation of dtype float32; its space has dtype uint8"),
        (Faulty(reset=lambda s, o: (s, {"start": o["start"]})), r"with \['start'\]; its space is a Dict with"),
        (Faulty(reset=lambda s, o: (s, {**o, "start": o["time"]})), r"observation\['start'\] of dtype int32"),
        (Faulty(reset=lambda s, o: o), "reset returns a dict; it must return"),
        (Faulty(step=lambda s, o, r, te, tr, i: (o, s, r, te, i)), "step returns a tuple of 5; it must return"),
        (change_step(1, 0.0), "step returns an observation with a ShapeDtypeStruct; its space is a Dict"),
        (change_step(2, jnp.zeros(1)), r"as reward an array float32\[1\]; it must be a real scalar"),
        (change_step(2, jnp.zeros((), bool)), r"as reward an array bool\[\]"),
        (change_step(3, lambda flag: flag.astype(jnp.float32)), r"as terminated an array float32\[\]"),
        (change_step(4, jnp.zeros(1, bool)), r"as truncated an array bool\[1\]; it must be a boolean scalar"),
        (change_step(5, None), "as info a NoneType; it must be a dict"),
        (change_step(5, {"cost": jnp.zeros((2, 2))}), r"info\['cost'\] an array float32\[2, 2\]"),
        (change_step(0, lambda s: s._replace(time=s.time * 1.0)), r"state.time is int32\[\] after .* and float32\[\]"),
        (change_step(0, lambda s: s._replace(start=jnp.zeros(2))), r"state.start is float32\[\] after .* float32\[2\]"),
        (change_step(0, lambda s: tuple(s)), "reset returns a state of structure .* they must be the same"),
        (change_step(0, lambda s: s.missing), r"step raises AttributeError: .*missing.* \(.*test_compiled.py:\d+\)"),
        (
            change_step(2, lambda reward: 1.0 if reward > 0.0 else reward),
            r"TracerBoolConversionError.*\(.*test_compiled.py:\d+\); use jnp\.where in place of if",
        ),
        (dataclasses.replace(Clock(), params={"map": "small"}), r"params\['map'\] is 'small'; params hold numbers"),
    ],
)
def test_the_check_says_what_is_wrong(env: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        check_compiled_environment(env, "mine:Env")
    assert "environment mine:Env" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attribute", ["reset", "step", "observation_space", "action_space", "params"])
def test_the_check_names_what_is_missing(attribute: str) -> None:
    parts = {name: getattr(Clock(), name) for name in dir(Clock()) if not name.startswith("__")}
    del parts[attribute]
    with pytest.raises(UsageError, match=f"has no '{attribute}'"):
        check_compiled_environment(type("Part", (), parts)(), "part")


def test_the_check_refuses_unsupported_spaces() -> None:
    names = ("reset", "step", "params", "observation_space", "action_space")
    for attribute, space in (("observation_space", spaces.Text(3)), ("action_space", spaces.Tuple([]))):
        env = type("Odd", (), {name: getattr(Clock(), name) for name in names} | {attribute: space})()
        with pytest.raises(UsageError, match=f"{attribute} is .* it must be a Gymnasium Box"):
            check_compiled_environment(env, "odd")


USER_MODULE = '''
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

class Point:
    """Move a point to the origin."""

    params = {"drag": 0.1}
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, limit=10):
        if limit < 0:
            raise ValueError("a negative limit")
        self.limit = limit

    def reset(self, key, params):
        position = jax.random.normal(key, (2,))
        return {"position": position, "time": 0}, position

    def step(self, key, state, action, params):
        position = state["position"] + action * (1 - params["drag"])
        time = state["time"] + 1
        return {"position": position, "time": time}, position, -jnp.sum(position**2), False, time >= self.limit, {}

ready = Point(5)
number = 3

def make_point(limit):
    return Point(limit)
'''


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that writes a module and makes it importable; undone after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name: str, text: str = USER_MODULE) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_a_users_environment_is_loaded_as_class_instance_or_function(user_module: Any) -> None:
    name = user_module("my_point")
    limits = [
        load_user_environment(f"{name}:{attribute}", kwargs).limit  # type: ignore[attr-defined]
        for attribute, kwargs in (("Point", {}), ("Point", {"limit": 4}), ("ready", {}), ("make_point", {"limit": 2}))
    ]
    assert limits == [10, 4, 5, 2]


def test_a_users_environment_runs(user_module: Any) -> None:
    env = load_user_environment(f"{user_module('my_point')}:Point", {"limit": 4})
    _, steps = run(env, np.full((9, 3, 2), 0.5, np.float32))
    np.testing.assert_array_equal(steps.truncated[:, 0], [0, 0, 0, 1, 0, 0, 0, 1, 0])
    np.testing.assert_allclose(steps.successors[1] - steps.observations[0], np.full((3, 2), 0.45), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("my_point", {}, "must be given as module:Name"),
        ("my_poit:Point", {}, "there is no module 'my_poit'"),
        ("my_point:Piont", {}, "unknown environment in module my_point 'Piont'; did you mean Point"),
        ("my_point:Point", {"limt": 3}, "unknown argument of environment my_point:Point 'limt'; did you mean limit"),
        ("my_point:make_point", {}, "environment my_point:make_point: missing a required argument: 'limit'"),
        ("my_point:Point", {"limit": -1}, r"making it raises ValueError: a negative limit \(.*my_point.py:16\)"),
        ("my_point:ready", {"limit": 3}, "is an object already made; it takes no arguments"),
        ("my_point:number", {}, "has no 'reset'"),
    ],
)
def test_a_users_mistake_is_named(user_module: Any, name: str, kwargs: dict[str, Any], words: str) -> None:
    user_module("my_point")
    with pytest.raises(UsageError, match=words):
        load_user_environment(name, kwargs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = x / 0\n", r"importing broken raises ZeroDivisionError: division by zero \(.*broken.py:2\)"),
        ("\nimport no_such_package\n", r"raises ModuleNotFoundError: .*no_such_package.* \(.*broken.py:2\)"),
        ("import json\n\njson.loads('{')\n", r"raises JSONDecodeError: .* \(.*broken.py:3\)"),
        ("def f(:\n", r"raises SyntaxError: .* \(.*broken.py:1\)"),
        ("raise SystemExit(3)\n", r"raises SystemExit: 3 \(.*broken.py:1\)"),
    ],
)
def test_a_module_that_raises_is_named_with_file_and_line(user_module: Any, text: str, words: str) -> None:
    user_module("broken", text)
    with pytest.raises(UsageError, match=words):
        load_user_environment("broken:Env", {})


def test_a_missing_optional_package_names_the_extra() -> None:
    with pytest.raises(UsageError, match=r"no_such_package is not installed; pip install 'jumar\[thing\]'"):
        import_optional("no_such_package.envs", "thing")


def test_optional_imports_print_nothing(user_module: Any, capfd: pytest.CaptureFixture[str]) -> None:
    user_module("loud", "import sys\nprint('loud')\nprint('loud', file=sys.stderr)\n")
    import_optional("loud", "thing")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    user_module("half", "import not_there_either\n")
    with pytest.raises(UsageError, match=r"half is installed but cannot be imported \(.*not_there_either"):
        import_optional("half", "thing")
