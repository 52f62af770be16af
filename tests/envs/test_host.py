"""The convention for host environments: autoreset, time limits, seeds, checks; in this process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import faulty
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from jumar.envs import batches
from jumar.envs.host import HostEnvironments, HostStep, SerialEnvironments
from jumar.envs.vector import VectorAdapter
from jumar.errors import EnvironmentFault, UsageError
from jumar.training.checks.course import mask_of


def walks(n: int = 2, **kwargs: Any) -> SerialEnvironments:
    return SerialEnvironments([lambda: faulty.Walk(**kwargs)] * n, "walk")


def faulty_environments(fault: str, n: int = 2, at: int = 3) -> SerialEnvironments:
    """All but the last one never go wrong."""
    makers: list[Callable[[], gym.Env]] = [lambda i=i: faulty.Faulty(fault, at if i == n - 1 else -1) for i in range(n)]
    return SerialEnvironments(makers, "faulty:X-v0")


def reset_and_step(envs: HostEnvironments) -> HostStep:
    envs.reset(list(range(envs.n_envs)))
    return envs.step([0] * envs.n_envs)


# --- autoreset and time limits ---


def test_an_ended_episode_is_reset_at_once_and_its_true_successor_kept() -> None:
    envs = walks(ends=3)
    observations, masks = envs.reset([7, 8])
    assert masks is None
    alone = faulty.Walk(ends=3)
    assert np.array_equal(observations[0], alone.reset(seed=7)[0])
    for step in range(1, 8):
        result = envs.step(np.array([1, -1]))
        expected, reward, terminated, _, _ = alone.step(1)
        assert result.successors[0].tolist() == expected.tolist()
        assert result.rewards[0] == reward
        assert result.terminated.tolist() == [step % 3 == 0] * 2 == [terminated] * 2
        assert result.valid.all()
        if terminated:
            expected, _ = alone.reset()
            assert result.observations[0, 0] == 0
        else:
            assert result.successors is result.observations
        assert result.observations[0].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("ends", "limit", "terminates", "truncates"), [(9, 2, False, True), (2, 9, True, False), (2, 2, True, False)]
)
def test_terminated_and_truncated_are_never_both_true(ends: int, limit: int, terminates: bool, truncates: bool) -> None:
    envs = walks(1, ends=ends, limit=limit)
    envs.reset([0])
    envs.step([0])
    result = envs.step([0])
    assert result.terminated.tolist() == [terminates]
    assert result.truncated.tolist() == [truncates]
    assert result.successors[0, 0] == 2
    assert result.observations[0, 0] == 0


def test_gymnasium_s_own_time_limit_is_known_and_truncates() -> None:
    envs = SerialEnvironments([lambda: gym.make("MountainCar-v0", max_episode_steps=2)])
    assert (envs.name, envs.episode_limit) == ("MountainCar-v0", 2)
    envs.reset([0])
    assert not envs.step([0]).truncated.any()
    result = envs.step([0])
    assert result.truncated.tolist() == [True]
    assert result.terminated.tolist() == [False]


@pytest.mark.parametrize("vector", [False, True])
def test_the_time_limit_around_an_unregistered_environment_is_known(vector: bool) -> None:
    def make() -> gym.Env:
        return TimeLimit(OrderEnforcing(TimeLimit(faulty.Walk(), 400)), 300)

    envs = VectorAdapter(SyncVectorEnv([make])) if vector else SerialEnvironments([make])
    assert envs.episode_limit == 300
    assert walks().episode_limit is None


def cart_pole_errors(before: np.ndarray, actions: np.ndarray, result: HostStep) -> np.ndarray:
    """Return how far each row is from being a true transition of CartPole."""
    errors = []
    for observation, action, successor in zip(before, actions, result.successors, strict=True):
        env = CartPoleEnv()
        env.reset()
        env.state = np.array(observation, np.float64)
        errors.append(np.abs(env.step(int(action))[0] - successor).max())
    return np.array(errors)


def test_every_row_of_an_autoresetting_loop_is_a_true_transition() -> None:
    envs = SerialEnvironments([lambda: gym.make("CartPole-v1")] * 2)
    observations, _ = envs.reset([0, 1])
    ends = 0
    for step in range(30):
        actions = np.array([1, step % 2])
        result = envs.step(actions)
        assert cart_pole_errors(observations, actions, result).max() < 1e-6
        ends += int(result.terminated.sum())
        observations = result.observations
    assert ends >= 3


# --- seeds ---


def rollout(envs: Any, seeds: list[int], steps: int = 12) -> list[np.ndarray]:
    observations, _ = envs.reset(seeds)
    found = [observations]
    for _ in range(steps):
        found.append(envs.step(np.zeros(len(seeds), int)).observations)
    return found


def test_the_same_seeds_give_the_same_streams_however_much_came_before() -> None:
    envs = walks(2)
    first = rollout(envs, [3, 4])
    assert np.array_equal(first, rollout(envs, [3, 4]))
    assert not np.array_equal(first, rollout(envs, [3, 5]))


def test_an_environment_s_stream_depends_on_its_own_seed_alone() -> None:
    many = np.array(rollout(walks(3), [5, 6, 7]))
    assert np.array_equal(many[:, 2], np.array(rollout(walks(1), [7]))[:, 0])


# --- arrays ---


def test_what_is_returned_is_never_overwritten() -> None:
    envs = walks(2, ends=3)
    kept = []
    observations, _ = envs.reset([0, 1])
    kept.append((observations, observations.copy()))
    for _ in range(6):
        result = envs.step([1, 1])
        kept += [(array, array.copy()) for array in (result.observations, result.successors, result.rewards)]
    for array, copy in kept:
        assert array.tobytes() == copy.tobytes()


def test_nested_spaces_are_batched_in_their_structure_and_dtypes() -> None:
    envs = SerialEnvironments([faulty.Rich] * 3, "rich")
    observations, masks = envs.reset([1, 2, 3])
    alone = faulty.Rich()
    expected, _ = alone.reset(seed=2)
    assert observations["image"].shape == (3, 2, 3, 1)
    assert observations["image"].dtype == np.uint8
    assert observations["flags"].dtype == np.int8
    assert isinstance(observations["place"], tuple)
    assert observations["place"][0].shape == (3,)
    assert observations["place"][1].dtype == np.float64
    assert observations["place"][0][1] == expected["place"][0]
    assert np.array_equal(observations["image"][1], expected["image"])
    assert masks is not None
    assert masks.tolist() == [[True, False, True, False, True]] * 3


def test_masks_and_costs_follow_the_observations() -> None:
    envs = SerialEnvironments([faulty.Rich, lambda: faulty.Rich(costly=False)], "rich")
    envs.reset([1, 2])
    result = envs.step(np.zeros((2, 2), int))
    assert result.costs is not None
    assert result.costs.tolist() == [1.0, 0.0]
    result = envs.step(np.zeros((2, 2), int))
    assert result.costs is not None
    assert result.costs.tolist() == [0.0, 0.0]
    assert result.action_masks is not None
    ended = result.terminated | result.truncated
    assert result.action_masks[~ended, 4].tolist() == [False] * int((~ended).sum())  # time 2
    assert result.action_masks[ended, 3].tolist() == [False] * int(ended.sum())  # time 0, after a reset


class MaskInInfo(faulty.Walk):
    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, info | ({"action_mask": np.array([0, 1, 1], np.int8)} if self.time == 1 else {})


def test_a_mask_in_the_info_holds_for_its_own_step_only() -> None:
    envs = SerialEnvironments([MaskInInfo])
    assert envs.reset([0])[1] is None
    first, second = envs.step([1]).action_masks, envs.step([1]).action_masks
    assert first is not None
    assert first.tolist() == [[False, True, True]]
    assert second is not None
    assert second.tolist() == [[True, True, True]]


class MaskOf(faulty.Walk):
    """A :class:`Walk` with this mask at every step, in the info or, where it is ``seen``, in the observation."""

    def __init__(self, mask: Any, seen: bool) -> None:
        super().__init__()
        self.mask, self.seen = mask, seen
        if seen:
            parts = {"x": faulty.Walk.observation_space, "action_mask": spaces.Box(-1.0, 2.0, (3,), np.float32)}
            self.observation_space = spaces.Dict(parts)

    def observe(self, action: Any) -> Any:
        x = super().observe(action)
        return {"x": x, "action_mask": np.array(self.mask, np.float32)} if self.seen else x

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, info if self.seen else info | {"action_mask": self.mask}


def test_a_mask_of_the_numbers_0_and_1_is_one() -> None:
    envs = SerialEnvironments([lambda: MaskOf(np.array([1.0, 0.0, 1.0]), seen=False)])
    envs.reset([0])
    masks = envs.step([0]).action_masks
    assert masks is not None
    assert masks.tolist() == [[True, False, True]]
    seen = SerialEnvironments([lambda: MaskOf([1.0, 0.0, 1.0], seen=True)])
    observation, masks = seen.reset([0])
    assert mask_of(seen, observation, masks).tolist() == [True, False, True]  # type: ignore[union-attr]


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("mask", "seen", "words"),
    [
        ([1.0, 0.5, 0.0], False, r"at step 1 that has the entry 0\.5; it must be boolean, or 0 and 1\.$"),
        ([1, 0, 2], False, r"at step 1 that has the entry 2; it must"),
        (["a", "b", "c"], False, r"at step 1 that has entries of dtype <U1; they must be boolean, or 0 and 1\.$"),
        ([1, 0], False, "at step 1 that has 2 entries where the action space has 3 choices"),
        ([1.0, -1.0, 0.0], True, r"in reset that has the entry -1\.0; it must be boolean"),
    ],
)
def test_other_entries_of_a_mask_are_named(mask: Any, seen: bool, words: str) -> None:
    envs = SerialEnvironments(
        [faulty.Walk if not seen else lambda: MaskOf([1, 0, 1], True), lambda: MaskOf(mask, seen)], "x"
    )
    with pytest.raises(EnvironmentFault, match="^environment 1 of x gave an action mask " + words):
        reset_and_step(envs)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", r"raised at step 3: ValueError: boom \(faulty.py:\d+\)\.$"),
        ("four values", r"returned 4 values at step 3 instead of the 5"),
        ("nan", r"bad observation at step 3: \[1\] is nan, which is not finite"),
        ("shape", r"bad observation at step 3: it has shape \(5,\) where its space has \(3,\)"),
        ("scalar", r"bad observation at step 3: it has shape \(\) where"),
        ("text", r"bad observation at step 3: it has shape \(\) where"),
        ("inf reward", r"bad reward at step 3: inf, which is not finite"),
        ("no reward", r"bad reward at step 3: NoneType None, which is not a number"),
        ("text reward", r"bad reward at step 3: str '1', which is not a number"),
        ("list reward", r"bad reward at step 3: list \[1.0\], which is not a number"),
        ("no mask", r"gave an action mask at step 3 that allows no action at all"),
        ("info", r"gave an info at step 3 that is no dict but list \[1\]"),
    ],
)
def test_a_fault_names_environment_index_step_and_value(fault: str, words: str) -> None:
    envs = faulty_environments(fault)
    envs.reset([0, 1])
    envs.step([0, 0])
    envs.step([0, 0])
    with pytest.raises(EnvironmentFault, match=f"^environment 1 of faulty:X-v0 (returned a )?{words}") as caught:
        envs.step([0, 0])
    assert (caught.value.__cause__ is None) == (fault == "four values")


@pytest.mark.parametrize(
    ("space", "value", "words"),
    [
        (
            spaces.Box(0, 2**40, (2,), np.int64),
            [5, 3_000_000_000],
            "[1] is 3000000000, which is not within -2,147,483,648",
        ),
        (
            spaces.Box(0, 2**40, (2,), np.uint64),
            [2**33, 0],
            "[0] is 8589934592, which is not within 0 to 4,294,967,295",
        ),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), [0.0, 1e39], "[1] is 1e+39, which is not within ±3.4e+38"),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), [np.inf, 1e39], "[0] is inf, which is not finite"),
    ],
)
def test_numbers_that_would_become_others_in_32_bits_are_refused(space: Any, value: Any, words: str) -> None:
    batch = np.array([value], space.dtype)
    with pytest.raises(batches.Misfit, match=re.escape(words)):
        batches.check_values(space, batch)
    batches.check_values(space, np.array([[7, 2**31 - 1]], space.dtype))
    if space.dtype.kind == "f":
        batches.check_values(space, np.array([[3.4e38, -3.4e38]]))


class NoSeed(faulty.Walk):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class SeedAndNoOptions(faulty.Walk):
    def reset(self, seed: Any) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class NoAction(faulty.Walk):
    def step(self) -> Any:  # type: ignore[override]
        return super().step(0)


class Confused(faulty.Walk):
    """Its own code calls something wrongly; nobody calls it wrongly."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(sed=seed)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            NoSeed,
            r"cannot be called in reset: NoSeed.reset: got an unexpected keyword argument 'seed' "
            r"\(test_host.py:\d+\); write it as def reset\(self, \*, seed=None, options=None\)\.$",
        ),
        (SeedAndNoOptions, r"cannot be called in (the reset after step 1: .*missing a|reset: .*got an)"),
        (
            NoAction,
            r"cannot be called at step 1: .*too many positional arguments.*write it as def step\(self, action\)",
        ),
        (Confused, r"raised in reset: TypeError: .*unexpected keyword argument 'sed' \(test_host.py:\d+\)\.$"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_wrong_signature_is_named_with_what_is_right(kind: type[gym.Env], words: str, wrapped: bool) -> None:
    def make() -> gym.Env:
        env = kind(ends=1)  # type: ignore[call-arg]
        return gym.wrappers.TimeLimit(gym.wrappers.OrderEnforcing(env), 9) if wrapped else env

    envs = SerialEnvironments([faulty.Walk, make], "x")
    with pytest.raises(EnvironmentFault, match=f"^environment 1 of x {words}"):
        rollout(envs, [0, 1], 1)


class OldGym(faulty.Walk):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_interface_of_the_old_gym_is_recognised(wrapped: bool) -> None:
    envs = SerialEnvironments([lambda: gym.wrappers.TimeLimit(OldGym(), 9) if wrapped else OldGym()], "x")
    envs.reset([0])
    with pytest.raises(
        EnvironmentFault, match=r"returned 4 values at step 1 instead of the 5 .*Gym before 0.26.*shimmy"
    ):
        envs.step([0])


def test_a_reset_must_return_a_pair_even_where_an_observation_has_two_numbers() -> None:
    class Bare(faulty.Walk):
        observation_space = spaces.Box(-1, 1, (2,))

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return np.zeros(2, np.float32)

    with pytest.raises(EnvironmentFault, match=r"returned ndarray array.* in reset instead of the 2 .*Gym before 0.26"):
        SerialEnvironments([Bare], "x").reset([0])


class Raising(faulty.Walk):
    def __init__(self, error: BaseException, where: str = "step") -> None:
        super().__init__()
        self.error, self.where = error, where

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if self.where == "reset":
            raise self.error
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        raise self.error


class Untellable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("where", ["step", "reset"])
@pytest.mark.parametrize("error", [GeneratorExit(), BaseException("base"), Untellable(), ValueError("x" * 10_000)])
def test_whatever_an_environment_raises_is_a_fault(error: BaseException, where: str) -> None:
    envs = SerialEnvironments([lambda: Raising(error, where)], "x")
    name = type(error).__name__
    with pytest.raises(
        EnvironmentFault, match=rf"^environment 0 of x raised .*: {name}.*\(test_host.py:\d+\)\.$"
    ) as it:
        rollout(envs, [0], 1)
    assert len(str(it.value)) < 1200


def test_what_steers_a_terminal_is_written_out() -> None:
    envs = SerialEnvironments([lambda: Raising(ValueError("\x1b[2Jgone \u202e\u00a0é"))], "x\x1b[31m")
    envs.reset([0])
    with pytest.raises(EnvironmentFault) as caught:
        envs.step([0])
    assert str(caught.value).startswith(r"environment 0 of x\x1b[31m raised at step 1: ValueError: \x1b[2Jgone \u202e")
    assert "é (test_host" in str(caught.value)


@pytest.mark.parametrize("kind", ["observation_space", "action_space"])
def test_a_missing_space_is_named(kind: str) -> None:
    class Bare(gym.Env):
        pass

    env = Bare()
    other = {"observation_space": "action_space", "action_space": "observation_space"}[kind]
    setattr(env, other, spaces.Discrete(2))
    for _ in range(2):
        words = f"the {kind.replace('_', ' ')} of x is missing; the environment must set it to one of gymnasium.spaces"
        with pytest.raises(UsageError, match=words):
            SerialEnvironments([env], "x")
        setattr(env, kind, None)


class Paying(faulty.Walk):
    def __init__(self, reward: Any) -> None:
        super().__init__()
        self.reward = reward

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, self.reward, *rest


@pytest.mark.parametrize("reward", [np.array([2.0]), np.array([[2]]), np.float32(2), 2, np.array(2.0)])
@pytest.mark.parametrize("other", [1.0, np.array([1.0])])
def test_a_reward_may_be_an_array_of_one_number(reward: Any, other: Any) -> None:
    envs = SerialEnvironments([lambda: Paying(other), lambda: Paying(reward)], "x")
    envs.reset([0, 1])
    rewards = envs.step([0, 0]).rewards
    assert rewards.tolist() == [1.0, 2.0]
    assert rewards.dtype.kind == "f"


@pytest.mark.parametrize("reward", [np.zeros(2), np.array([]), [1.0], None, "1", np.array(["1"])])
def test_what_is_no_single_number_is_no_reward(reward: Any) -> None:
    envs = SerialEnvironments([lambda: Paying(0.0), lambda: Paying(reward)], "x")
    envs.reset([0, 1])
    with pytest.raises(
        EnvironmentFault, match=r"environment 1 of x returned a bad reward at step 1: .* is not a number"
    ):
        envs.step([0, 0])


class Charging(faulty.Walk):
    def __init__(self, costs: list[Any]) -> None:
        super().__init__()
        self.costs = costs

    def step(self, action: Any) -> Any:
        *rest, _ = super().step(action)
        return *rest, {"cost": self.costs[self.time - 1]}


def test_a_foreign_cost_counts_as_none_and_is_complained_of() -> None:
    envs = SerialEnvironments([faulty.Walk, lambda: Charging(["cheap", 2.0, [1, [2]], np.nan])], "x")
    envs.reset([0, 1])
    steps = [envs.step([0, 0]) for _ in range(4)]
    assert [None if step.costs is None else step.costs.tolist() for step in steps] == [None, [0, 2], [0, 0], [0, 0]]
    assert steps[0].complaint == "environment 1 of x gave a cost at step 1 that is cheap, not a finite number."
    assert [step.complaint is None for step in steps] == [False, True, False, False]


def test_a_fault_in_a_reset_is_named() -> None:
    envs = SerialEnvironments([faulty.Walk, lambda: faulty.FaultyReset(ends=2)], "x")
    envs.reset([0, 1])
    envs.step([0, 0])
    with pytest.raises(
        EnvironmentFault, match=r"environment 1 of x raised in the reset after step 2: RuntimeError: no"
    ):
        envs.step([0, 0])
    with pytest.raises(EnvironmentFault, match="environment 1 of x raised in reset: RuntimeError: no second life"):
        envs.reset([0, 1])


class Missing(faulty.Rich):
    def observe(self) -> dict[str, Any]:
        observation = super().observe()
        del observation["flags"]
        return observation


class Deep(faulty.Rich):
    def observe(self) -> dict[str, Any]:
        return super().observe() | {"place": (3, np.zeros(2))}


class Wrapped(faulty.Rich):
    def observe(self) -> dict[str, Any]:
        return super().observe() | {"image": np.full((2, 3, 1), 256)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Missing, r"the keys \['dice', 'image', 'place'\] instead of a dict with the keys"),
        (Deep, r"\['place'\]\[0\] is 3, which is not in Discrete\(5, start=-2\)"),
        (Wrapped, r"\['image'\] is array.* of dtype int64, which does not fit its space's uint8"),
    ],
)
def test_misfits_deep_in_a_nested_observation_are_found(kind: type[gym.Env], words: str) -> None:
    envs = SerialEnvironments([kind], "x")
    with pytest.raises(
        EnvironmentFault, match="(?s)environment 0 of x returned a bad observation in reset: .*" + words
    ):
        envs.reset([0])


class Flags(faulty.Walk):
    """Returns the given flags from its second step on."""

    def __init__(self, terminated: Any, truncated: Any) -> None:
        super().__init__()
        self.flags = terminated, truncated

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        terminated, truncated = self.flags if self.time == 2 else (terminated, truncated)
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize("bad", ["no", None, np.array([True, False]), 2, np.nan, [[]]], ids=str)
@pytest.mark.parametrize("what", ["terminated", "truncated"])
def test_a_flag_that_is_neither_true_nor_false_is_refused(bad: Any, what: str) -> None:
    flags = (bad, False) if what == "terminated" else (False, bad)
    envs = SerialEnvironments([faulty.Walk, lambda: Flags(*flags)], "x")
    envs.reset([0, 1])
    envs.step([0, 0])
    with pytest.raises(EnvironmentFault, match=rf"^environment 1 of x gave a {what} at step 2 that is .*, not true or"):
        envs.step([0, 0])


@pytest.mark.parametrize("true", [np.True_, 1, 1.0, np.array(True), np.array([1])], ids=repr)
def test_flags_may_be_numpys_or_numbers(true: Any) -> None:
    false = type(true)(0) if not isinstance(true, np.ndarray) else np.zeros_like(true)
    envs = SerialEnvironments([lambda: Flags(true, false), lambda: Flags(false, true), lambda: Flags(false, false)])
    envs.reset([0, 1, 2])
    envs.step([0, 0, 0])
    step = envs.step([0, 0, 0])
    assert step.terminated.tolist() == [True, False, False]
    assert step.truncated.tolist() == [False, True, False]
    assert (step.terminated.dtype, step.truncated.dtype) == (bool, bool)


@pytest.mark.parametrize("where", ["constructor", "reset", "step"])
def test_an_environment_that_leaves_the_program_is_a_fault(where: str) -> None:
    def run() -> None:
        envs = SerialEnvironments([lambda: faulty.Leaving(where)], "x")
        envs.reset([0])
        envs.step([0])

    said = {"constructor": "while it was made", "reset": "in reset", "step": "at step 1"}[where]
    with pytest.raises(EnvironmentFault, match=rf"environment 0 of x raised {said}: SystemExit: 0 \(faulty.py:\d+\)"):
        run()


def test_a_mask_that_leaves_one_part_of_the_action_no_choice_is_named() -> None:
    class Stuck(faulty.Rich):
        def action_masks(self) -> np.ndarray:
            mask = super().action_masks()
            mask[3:] &= self.time < 2
            return mask

        def step(self, action: Any) -> Any:
            observation, reward, _, _, info = super().step(action)
            return observation, reward, False, False, info

    envs = SerialEnvironments([faulty.Rich, Stuck], "x")
    envs.reset([1, 2])
    envs.step(np.zeros((2, 2), int))
    with pytest.raises(EnvironmentFault, match=r"environment 1 of x gave an action mask at step 2 that .*no action"):
        envs.step(np.zeros((2, 2), int))


@pytest.mark.parametrize(
    ("space", "actions", "words"),
    [
        (spaces.Discrete(3), [[0, 0]], r"actions of shape \(1, 2\) instead of \(2,\)"),
        (spaces.Discrete(3), [0, 3], r"environment 1 of walk was given a bad action at step 1: it is 3, .*one of 3"),
        (spaces.Discrete(3), [0.0, 1.0], "dtype float64 instead of whole numbers"),
        (spaces.MultiDiscrete([2, 3]), [[1, 2], [2, 0]], r"environment 1 .* \[0\] is 2"),
        (spaces.MultiBinary(2), [[0, 2], [0, 0]], r"environment 0 .* \[1\] is 2"),
        (spaces.Box(-1, 1, (2,)), [[0, 0], [0, np.nan]], r"environment 1 .* \[1\] is nan"),
    ],
)
def test_actions_that_do_not_fit_are_refused(space: spaces.Space, actions: Any, words: str) -> None:
    def make() -> gym.Env:
        env = faulty.Walk()
        env.action_space = space
        return env

    envs = SerialEnvironments([make] * 2, "walk")
    envs.reset([0, 1])
    with pytest.raises(EnvironmentFault, match=words):
        envs.step(np.array(actions))


def test_single_precision_actions_stay_inside_double_precision_bounds() -> None:
    space = spaces.Box(-0.1, 0.1, (1,), np.float64)
    assert not space.contains(np.array([0.1], np.float32).astype(np.float64))  # the trap

    class Strict(faulty.Walk):
        action_space = space

        def observe(self, action: Any) -> Any:
            return super().observe(0)

    envs = SerialEnvironments([Strict])
    envs.reset([0])
    envs.step(np.array([[0.1]], np.float32))


def test_an_interrupt_is_not_taken_for_a_fault() -> None:
    class Interrupted(faulty.Walk):
        def step(self, action: Any) -> Any:
            raise KeyboardInterrupt

    envs = SerialEnvironments([Interrupted])
    envs.reset([0])
    with pytest.raises(KeyboardInterrupt):
        envs.step([0])


def test_environments_that_cannot_run_together_are_refused() -> None:
    one = faulty.Walk()
    with pytest.raises(UsageError, match="same environment object"):
        SerialEnvironments([lambda: one] * 2)
    with pytest.raises(UsageError, match=r"environment 1 of x has the space .*all must have the same"):
        SerialEnvironments([faulty.Walk, faulty.Rich], "x")
    with pytest.raises(UsageError, match=r"must be a gymnasium.Env, not int"):
        SerialEnvironments([lambda: 3])  # type: ignore[list-item]
    with pytest.raises(EnvironmentFault, match="environment 0 of x raised while it was made: ZeroDivisionError"):
        SerialEnvironments([lambda: 1 / 0], "x")  # type: ignore[list-item]


def test_only_what_was_made_here_is_closed() -> None:
    class Closing(faulty.Walk):
        closed = False

        def close(self) -> None:
            self.closed = True

    live, made = Closing(), Closing()
    SerialEnvironments([live, lambda: made]).close()
    assert (live.closed, made.closed) == (False, True)


def test_a_hanging_environment_is_warned_about_once() -> None:
    warned = threading.Event()
    sentences: list[str] = []

    def warn(sentence: str) -> None:
        sentences.append(sentence)
        warned.set()

    class Slow(faulty.Walk):
        def step(self, action: Any) -> Any:
            if self.time == 1:
                assert warned.wait(20)
                time.sleep(0.4)  # several looks of the watchdog
            return super().step(action)

    envs = SerialEnvironments([faulty.Walk, Slow], "slow", warn=warn, patience=0.5)
    envs.reset([0, 1])
    envs.step([0, 0])
    envs.step([0, 0])
    envs.close()
    assert len(sentences) == 1
    assert sentences[0].startswith("environment 1 of slow has not returned from step 2 for 0.5 s;")
    assert "--workers 2" in sentences[0]
