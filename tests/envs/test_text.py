"""Parts of observations that are text: no policy sees them, whatever steps the environment, and the user is told once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faulty
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import jumar
from jumar.envs.host import HostEnvironments, SerialEnvironments
from jumar.envs.registry import make_host, resolve
from jumar.envs.vector import VectorAdapter
from jumar.errors import UsageError

LEFT = spaces.Dict({"counter": faulty.Walk.observation_space, "place": spaces.Tuple((spaces.Discrete(2),))})
WHERE = ("['mission']", "['notes']", "['place'][0]")
TINY: dict[str, Any] = {"n_envs": 2, "n_steps": 4, "batch_size": 8, "n_epochs": 1, "net_arch": (2,)}


def short_mission() -> gym.Env[Any, Any]:
    return faulty.Mission(ends=2)


def in_a_vector(mode: AutoresetMode) -> HostEnvironments:
    return VectorAdapter(SyncVectorEnv([short_mission] * 2, autoreset_mode=mode))


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_host(resolve("faulty:Mission-v0", {"ends": 2}), 2),
        lambda: make_host(resolve("faulty:Mission-v0", {"ends": 2}), 2, workers=1),
        lambda: SerialEnvironments([short_mission, short_mission]),
        *[lambda mode=mode: in_a_vector(mode) for mode in AutoresetMode],
    ],
    ids=["id", "worker", "functions", *[f"vector {mode.name}" for mode in AutoresetMode]],
)
def test_text_is_left_out_by_every_backend(make: Callable[[], HostEnvironments]) -> None:
    environments = make()
    try:
        assert environments.observation_space == LEFT
        assert environments.left_out == WHERE
        seen = [environments.reset([0, 1])[0]]
        action = np.zeros((2, *(environments.action_space.shape or ())), environments.action_space.dtype)
        for _ in range(3):
            step = environments.step(action)
            seen += [step.observations, step.successors]
        for batch in seen:
            assert batch.keys() == {"counter", "place"}
            np.testing.assert_array_equal(batch["place"][0], [1, 1])
            assert len(batch["place"]) == 1
    finally:
        environments.close()


def test_an_observation_of_text_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="observation space of faulty:Letter-v0 at 'mission' is Text"):
        make_host(resolve("faulty:Letter-v0"), 1)


def test_what_does_not_fit_is_still_named() -> None:
    class Forgets(faulty.Mission):
        def observe(self, action: Any) -> Any:
            return {key: part for key, part in super().observe(action).items() if key != "counter"}

    environments = SerialEnvironments([Forgets])
    with pytest.raises(jumar.JumarError, match="bad observation in reset: it is the keys"):
        environments.reset([0])


def test_agents_say_once_what_they_leave_out_and_act_on_whole_observations(tmp_path: Path) -> None:
    said = r"\['mission'\], .* are text in the observations of .*; no policy here reads text"
    with pytest.warns(UserWarning, match=said):
        agent = jumar.PPO(short_mission, **TINY)
    assert agent.observation_space == LEFT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(8)
        agent.save(tmp_path / "a")
    with pytest.warns(UserWarning, match=said):
        jumar.evaluate_policy(agent, short_mission, 1)
    with pytest.warns(UserWarning, match=said):
        again = jumar.load(tmp_path / "a", env=short_mission)
    whole = faulty.Mission.observation_space.sample()
    alone = {"counter": whole["counter"], "place": (whole["place"][1],)}
    actor = jumar.load_policy(tmp_path / "a")
    for one in (agent, again, actor):
        np.testing.assert_array_equal(one.predict(whole)[0], one.predict(alone)[0])
