"""``jumar check``: a sound environment is left alone, and each fault is named in a sentence."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from jumar.cli import main
from jumar.errors import UsageError
from jumar.training import check as checks
from jumar.training.check import check, words
from jumar.training.checks.course import draw
from jumar.training.checks.replays import Moment, Trace, first_difference


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).parent
    monkeypatch.syspath_prepend(here)
    monkeypatch.syspath_prepend(here.parent / "envs")


def said(report: dict[str, Any], group: str = "wrong") -> str:
    return " | ".join(report[group])


def test_a_sound_environment_is_left_alone() -> None:
    report = check("unsound:Sound-v0", steps=300)
    assert report["wrong"] == []
    assert report["can_train"]
    assert report["mean_return"] == -report["mean_length"]  # each step costs 1
    assert "The same seed and actions give the same 200 steps again" in said(report, "what")
    assert "Observations: 2 numbers in [-10, 10] (Box, float32)." in report["what"]
    assert "The network gets observation: a vector of 2 numbers." in report["what"]
    assert "Actions: one of 2 (Discrete, int64)." in report["what"]
    assert 'info has numbers that --log-info KEY logs: "place".' in report["what"]
    assert {"ppo", "sac", "acer"} <= set(report["algorithms"])
    assert not {"ddpg", "td3", "bc", "cpo"} & set(report["algorithms"])
    assert report["workers"] == 0
    again = check("unsound:Sound-v0", steps=300)
    assert again["digest"] == report["digest"] != check("unsound:Sound-v0", steps=300, seed=1)["digest"]
    assert "Nothing was found." in words(report)


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("Unseeded", "with the same seed and actions, observation[1] at step 2 was "),
        ("Carried", "with the same seed and actions, reward at step 1 was "),
        (
            "Shared",
            "Two environments in one process are not independent: beside another one, observation[0] at step 2 was ",
        ),
        ("Still", "The observation never changed within an episode, in 300 steps"),
        ("HalfStill", "1 entry of observation had one value only in 300 steps: [1]."),
        ("Deaf", "Actions change nothing: other actions give the same observations and rewards for 200 steps."),
        ("Outside", "observation[0] was 2 at step 2, outside of [-1, 1]"),
        ("Double", "observation is returned as float64, which is not its space's dtype; it is converted."),
        ("Huge", "Rewards are as large as 100,000"),
        ("Nothing", "No reward but 0 in 300 steps of random actions"),
        ("Endless", "No episode ended in 300 steps of random actions, and no time limit is stated."),
        ("Clocked", "Every episode was terminated after exactly 7 steps."),
        ("Unbounded", "The action space has infinite bounds"),
        ("Lopsided", "The action's bounds are not symmetric around 0"),
    ],
)
def test_what_does_not_prevent_training_is_said(env: str, sentence: str) -> None:
    report = check(f"unsound:{env}-v0", steps=300)
    assert sentence in said(report)
    assert len(report["wrong"]) == 1, report["wrong"]
    assert report["can_train"]
    assert report["prevents"] == []


def test_text_in_observations_is_said_to_be_left_out() -> None:
    report = check("faulty:Mission-v0", steps=20)
    assert "['mission'], ['notes'], ['place'][0] are text in the observations of faulty:Mission-v0" in said(
        report, "what"
    )
    assert report["can_train"]


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("unsound:Unkind", "environment 0 of unsound:Unkind-v0 cannot be called in reset: Unkind.reset: "),
        ("unsound:Alone", "in reset instead of the 2 of Gymnasium (observation, info)"),
        ("unsound:Blocked", "environment 0 of unsound:Blocked-v0 showed an action mask that allows no action at all"),
        ("faulty:NaN", "returned a bad observation at step 3: [1] is nan, which is not finite"),
        ("faulty:Shape", "returned a bad observation at step 3: "),
        ("faulty:FourValues", "returned 4 values at step 3 instead of the 5 of Gymnasium"),
        ("faulty:InfReward", "returned a bad reward at step 3: inf, which is not finite"),
        ("faulty:TextReward", "returned a bad reward at step 3: str '1', which is not a number"),
        ("faulty:Raises", "raised at step 3: ValueError: boom"),
        ("faulty:NoMask", "gave an action mask at step 3 that allows no action at all"),
    ],
)
def test_what_prevents_training_is_said(env: str, sentence: str) -> None:
    report = check(f"{env}-v0", steps=50)
    assert sentence in said(report, "prevents")
    assert not report["can_train"]
    assert report["algorithms"] == []


def test_a_slow_environment_gets_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "count_processors", lambda: 4)
    report = check("unsound:Slow-v0", steps=40)
    assert report["workers"] == 4
    assert "with 4 worker processes" in said(report, "slow")
    assert "Worker processes: --n-envs 8; jumar train then takes --workers 4 itself." in report["right"]
    assert report["step_seconds"] >= 0.002


def test_masks_in_observations_are_kept_to_in_every_copy() -> None:
    report = check("unsound:Masked-v0", steps=100)
    assert report["can_train"]
    assert "not independent" not in said(report)


@pytest.mark.parametrize("wrapper", ["FlattenObservation", 'FilterObservation:filter_keys=["place"]'])
def test_a_mask_that_wrappers_leave_out_is_said(wrapper: str) -> None:
    report = check("unsound:Masked-v0", wrappers=[wrapper], steps=2)
    assert "unsound:Masked-v0 has an action_mask in its observations that its wrappers leave out" in said(report)


def test_the_largest_bounds_of_actions_are_no_trouble() -> None:
    assert "Half of the range of an action is from 1.79769e+308" in said(check("unsound:Vast-v0", steps=50))


def test_masks_costs_and_every_part_of_a_nested_observation_are_told() -> None:
    report = check("faulty:Rich-v0", steps=100)
    assert "The network gets observation['dice']: 2 choices, one-hot." in report["what"]
    assert "Action masks allow 60% of the choices." in report["what"]
    assert "info['cost'] is given" in said(report, "what")
    assert "cpo" in report["algorithms"]
    assert "sac" not in report["algorithms"]


def test_a_compiled_environment_is_timed_as_many_copies() -> None:
    report = check("jax/CartPole-v1", steps=60)
    assert report["can_train"]
    assert report["wrong"] == []
    assert "Time limit: 500 steps; evaluations run whole episodes." in report["what"]
    assert "64 copies in one program take" in said(report, "slow")


def test_arguments_wrappers_and_frame_stacks_are_those_of_training() -> None:
    report = check(
        "unsound:Endless-v0", wrappers=["TimeLimit:max_episode_steps=10"], frame_stack=3, steps=60, kwargs={}
    )
    assert report["wrong"] == []
    assert report["mean_length"] == 10
    assert "Observations: 3 x 2 numbers in [-10, 10] (Box, float32)." in report["what"]
    with pytest.raises(UsageError, match="cannot make Sound-v0 with lengthh=3"):
        check("unsound:Sound-v0", kwargs={"lengthh": 3})


def test_an_environment_that_raises_differs_from_a_wrong_name_or_argument() -> None:
    assert "making it raises RuntimeError: no board" in said(check("jax/unsound:Unmade"), "prevents")
    with pytest.raises(UsageError, match="unknown environment in module unsound 'Unmad'; did you mean Unmade"):
        check("jax/unsound:Unmad")
    with pytest.raises(UsageError, match="unknown argument of environment unsound:Unmade 'sise'"):
        check("jax/unsound:Unmade", kwargs={"sise": 2})


def test_the_command_exits_with_1_where_training_is_impossible() -> None:
    for env, code in (("unsound:Alone-v0", 1), ("unsound:Sound-v0", 0), ("unsound:Missing-v0", 2)):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            assert main(["check", env, "--steps", "30", "--json"]) == code
        answer = json.loads(output.getvalue().splitlines()[-1])
        assert ("error" in answer) == (code == 2)
        assert answer.get("can_train", False) == (code == 0)


def test_the_first_difference_is_named() -> None:
    def moment(x: float, reward: float = 0.0, terminated: bool = False) -> Moment:
        return Moment([("['a']", np.array([0.0, x]))], reward, terminated, False)

    one = Trace([moment(0), moment(1), moment(2)], [])
    assert first_difference(one, one) is None
    assert first_difference(one, Trace([moment(0.5)], [])) == "observation['a'][1] after the reset was 0 and is 0.5"
    assert first_difference(one, Trace([moment(0), moment(3), moment(4)], [])) == (
        "observation['a'][1] at step 1 was 1 and is 3"
    )
    assert first_difference(one, Trace([moment(0), moment(1, 2.0)], [])) == "reward at step 1 was 0.0 and is 2.0"
    assert first_difference(one, Trace([moment(0), moment(1), moment(2, terminated=True)], [])) == (
        "terminated at step 2 was False and is True"
    )


@pytest.mark.parametrize(
    ("space", "mask", "allowed"),
    [
        (spaces.Discrete(3, start=-1), [False, True, False], {0}),
        (spaces.MultiDiscrete([2, 3]), [True, False, False, False, True], {(0, 2)}),
        (spaces.MultiBinary(2), [True, False, False, True], {(0, 1)}),
    ],
)
def test_random_actions_keep_to_masks(space: Any, mask: list[bool], allowed: set[Any]) -> None:
    random = np.random.default_rng(0)
    drawn = [draw(space, np.array(mask), random) for _ in range(8)]
    assert {tuple(map(int, x)) if x.ndim else int(x) for x in drawn} == allowed
    assert all(space.contains(x if x.ndim else space.dtype.type(x)) for x in drawn)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-2.0, 5.0, (3,), np.float32),
        spaces.Box(np.array([0.0, -np.inf]), np.array([np.inf, 3.0]), dtype=np.float64),
        spaces.Box(0, 7, (2,), np.int32),
        spaces.MultiDiscrete([2, 3], start=[5, -1]),
    ],
)
def test_random_actions_are_in_their_space(space: Any) -> None:
    random = np.random.default_rng(0)
    assert all(space.contains(draw(space, None, random)) for _ in range(20))
