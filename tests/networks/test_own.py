"""Encoders of the user's own: what may be one, what is refused, and how observations reach it."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax.core import Tracer

import jumar
from jumar.cli import main
from jumar.critics.state_values import make_critic
from jumar.errors import EnvironmentFault, JumarError, TrainingFailed, UsageError
from jumar.networks.own import OwnEncoder, OwnNetwork
from jumar.policies.observations import Encoder
from jumar.policies.own_code import NO_CODE, OwnCode, OwnNames
from jumar.policies.policy import PolicySettings, make_policy

SPACE = spaces.Dict(
    {
        "grid": spaces.Box(0, 255, (6, 6, 2), np.uint8),
        "kind": spaces.Discrete(3),
        "where": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    }
)


class Weighted:
    """``init`` and ``apply``: the sum of each part, times a weight for each."""

    def init(self, key: Any) -> Any:
        return {"weights": jnp.ones(3)}

    def apply(self, parameters: Any, observation: Any) -> Any:
        sums = jnp.stack([jnp.sum(observation[name].astype(jnp.float32)) for name in ("grid", "kind", "where")])
        return parameters["weights"] * sums


@jax.tree_util.register_pytree_node_class
class Module:
    """What an Equinox module is: a pytree, some leaves of which are no arrays, that can be called."""

    def __init__(self, weights: Any, activation: Any) -> None:
        self.weights, self.activation = weights, activation

    @classmethod
    def make(cls, key: Any) -> Module:
        return cls(jax.random.normal(key, (4, 5)), jnp.tanh)

    def __call__(self, observation: Any) -> Any:
        return self.activation(observation["where"].reshape(-1) @ self.weights)

    def tree_flatten(self) -> Any:
        return (self.weights, self.activation), None

    @classmethod
    def tree_unflatten(cls, _: Any, leaves: Any) -> Module:
        return cls(*leaves)


PARTS = Encoder.of(SPACE, normalise=False).parts(None)


def observed(batch: tuple[int, ...]) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        "grid": draw.integers(0, 256, (*batch, 6, 6, 2), np.uint8),
        "kind": draw.integers(0, 3, batch).astype(np.int32),
        "where": draw.normal(size=(*batch, 2, 2)).astype(np.float32),
    }


@pytest.mark.parametrize(
    "given", [Weighted, Weighted(), (Weighted().init, Weighted().apply)], ids=["class", "object", "pair"]
)
def test_an_encoder_sees_each_observation_in_its_structure(given: Any) -> None:
    network = OwnNetwork.of(OwnEncoder("weighted", given), PARTS)
    encoder, observation = Encoder.of(SPACE, normalise=False), observed((2, 3))
    features = encoder.encode(observation, encoder.initial_moments())
    outputs = network.apply(network.init(jax.random.PRNGKey(0)), features)
    grid, where = (observation[name].astype(float).reshape(2, 3, -1).sum(-1) for name in ("grid", "where"))
    np.testing.assert_allclose(outputs, np.stack([grid, np.ones((2, 3)), where], -1), rtol=1e-5)


def test_tuples_reach_an_encoder_as_tuples() -> None:
    inner = spaces.Dict({"one": spaces.Box(-1.0, 1.0, (2,)), "two": spaces.Tuple([spaces.MultiBinary(2)])})
    space = spaces.Tuple([spaces.Discrete(2), inner])

    def apply(parameters: Any, observation: Any) -> Any:
        kind, parts = observation
        (bits,) = parts["two"]
        return parameters["x"] * jnp.concatenate([kind, parts["one"], bits])

    encoder = Encoder.of(space, normalise=False)
    network = OwnNetwork.of(OwnEncoder("mine", ((lambda key: {"x": jnp.ones(1)}), apply)), encoder.parts(None))
    seen = (np.array([1, 0]), {"one": np.array([[0.1, 0.2], [0.3, 0.4]]), "two": (np.array([[0, 1], [1, 1]]),)})
    outputs = network.apply({"x": jnp.ones(1)}, encoder.encode(seen, encoder.initial_moments()))
    np.testing.assert_allclose(outputs, [[0, 1, 0.1, 0.2, 0, 1], [1, 0, 0.3, 0.4, 1, 1]], rtol=1e-6)


def test_a_module_is_drawn_from_a_key_and_its_arrays_alone_are_parameters() -> None:
    network = OwnNetwork.of(OwnEncoder("module", Module.make), PARTS)
    assert network.outputs == 5
    parameters = network.init(jax.random.PRNGKey(7))
    np.testing.assert_array_equal(parameters["array_0"], Module.make(jax.random.PRNGKey(7)).weights)
    encoder, observation = Encoder.of(SPACE, normalise=False), observed((4,))
    outputs = network.apply(parameters, encoder.encode(observation, encoder.initial_moments()))
    expected = np.tanh(observation["where"].reshape(4, 4) @ np.asarray(parameters["array_0"]))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def returning(answer: Any, parameters: Any = 1.0) -> Any:
    return (lambda key: {"x": jnp.asarray(parameters)}), (lambda parameters, observation: answer)


class Half:
    def apply(self, parameters: Any, observation: Any) -> Any:
        return observation


def raising(parameters: Any, observation: Any) -> Any:
    return observation["missing"]


def drawing(init: Any) -> Any:
    return init, (lambda parameters, seen: seen["where"][0])


def computing(apply: Any) -> Any:
    return (lambda key: {"x": jnp.ones(1)}), (lambda parameters, seen: apply(seen))


def by_kind(seen: Any) -> Any:
    """Return something else where it is compiled."""
    return seen["where"][0, :1] if isinstance(seen["where"], Tracer) else seen["where"][0]


def exit_from(anything: Any) -> Any:
    raise SystemExit(3)


class Unmade(Weighted):
    def __init__(self) -> None:
        raise ValueError("no weights file")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (returning(jnp.zeros((2, 2))), r"returns an array of shape \[2, 2\] and type float32"),
        (returning(jnp.zeros(3, jnp.int32)), "and type int32"),
        (returning(jnp.array([1.0, jnp.nan])), "returns nan for an observation of zeros"),
        (returning(jnp.zeros(2), parameters=3), "has a parameter of type int32"),
        ((lambda key: {}, raising), r"fails on an observation of shapes .*KeyError: 'missing'"),
        (7, "is of type int; it must have init"),
        ("nets:Mine", "is a text; from Python pass the object itself"),
        (Half, "has apply, but no init"),
        (lambda: None, "does not make a module of a key: TypeError"),
        (Unmade, "cannot be made without arguments: ValueError: no weights file"),
        (drawing(lambda key: exit_from(key)), "fails to draw parameters from a key: SystemExit: 3"),
        (computing(lambda seen: exit_from(seen)), "fails on an observation of shapes .*: SystemExit: 3"),
        (drawing(lambda key: {"a/b": {"c": 1.0}, "a": {"b/c": 2.0}}), "has two parameters that files call 'a/b/c'"),
        (drawing(lambda key: {"x": np.ones(2) * float(key[0])}), "cannot be compiled for a batch of observations"),
        (
            computing(lambda seen: np.tanh(np.asarray(seen["where"])[0])),
            "batch.*: TracerArrayConversionError: The numpy",
        ),
        (computing(lambda seen: seen["where"][0] if seen["where"].sum() == 0 else 1.0), "batch.*TracerBoolConversion"),
        (computing(by_kind), r"of shape \[2\] and type float32 for one .* but of shape \[1\] and type float32 where"),
        (lambda key: 3, "returned an object of type int for a key"),
    ],
)
def test_what_is_no_encoder_is_refused(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        OwnNetwork.of(OwnEncoder("mine", given), PARTS)


def test_policy_and_critic_have_an_encoder_each_before_their_layers() -> None:
    settings = PolicySettings(net_arch=(4,), critic_net_arch=(), policy_observations=("where",))
    encode = (
        (lambda key: {"x": jnp.ones(1)}),
        (lambda p, seen: p["x"] * jnp.stack([jnp.sum(x) for x in jax.tree.leaves(seen)])),
    )
    policy = make_policy(SPACE, spaces.Discrete(2), settings, OwnCode.passed(None, encode))
    critic = make_critic(policy.encoder, settings)
    assert policy.torso.own.outputs == 1  # type: ignore[union-attr]
    assert critic.torso.own.outputs == 3  # type: ignore[union-attr]
    assert set(policy.init(jax.random.PRNGKey(0))["torso"]) == {"encoder", "mlp"}
    with pytest.raises(UsageError, match="features and an encoder do not go together"):
        make_policy(SPACE, spaces.Discrete(2), settings, OwnCode(lambda x: x, OwnEncoder("mine", encode)))


@pytest.mark.parametrize(
    ("own", "names", "said"),
    [
        (NO_CODE, OwnNames(encoder="nets:Mine"), "nothing named by a file is imported; repeat --encoder nets:Mine"),
        (NO_CODE, OwnNames(encoder="Mine"), r"imported; pass encoder=\.\.\. from Python"),
        (OwnCode(encoder=OwnEncoder("nets:Mine", 1)), OwnNames(), "has no encoder of your own; leave nets:Mine out"),
        (OwnCode(encoder=OwnEncoder("nets:Other", 1)), OwnNames(encoder="nets:Mine"), "is not the encoder of the run"),
    ],
)
def test_code_is_passed_again_or_the_policy_is_refused(own: OwnCode, names: OwnNames, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        own.check(names, "the run")


PPO, SAC = partial(jumar.PPO, n_steps=16, batch_size=16, n_epochs=1), partial(jumar.SAC, learning_starts=8)


@pytest.mark.parametrize("make", [PPO, SAC])
def test_an_encoder_is_trained_saved_as_arrays_and_passed_again(make: Any, tmp_path: Any) -> None:
    """On policy and off policy; a table would not move, so that both networks' encoders are seen to be trained."""
    encode = (lambda key: {"w": jax.random.normal(key, (3, 4))}), (lambda p, seen: jnp.tanh(seen @ p["w"]))
    agent = make("jax/Pendulum-v1", encoder=encode, net_arch=(4,))
    before = jax.device_get(agent._training.learner.parameters)
    agent.learn(32)
    after = agent._training.learner.parameters
    for half in ("policy", "critic"):
        old, new = before[half]["torso"]["encoder"]["w"], after[half]["torso"]["encoder"]["w"]
        assert np.abs(old - new).max() > 1e-5
    agent.save(tmp_path / "agent")
    with pytest.raises(UsageError, match=r"pass encoder=\.\.\. from Python"):
        jumar.load_policy(tmp_path / "agent")
    actor = jumar.load_policy(tmp_path / "agent", encoder=encode)
    again = jumar.load(tmp_path / "agent", encoder=encode)
    seen = np.array([0.1, 0.2, 0.3], np.float32)
    np.testing.assert_array_equal(actor.predict(seen)[0], agent.predict(seen)[0])
    np.testing.assert_array_equal(again.predict(seen)[0], agent.predict(seen)[0])


class Pictures(gym.Env[np.ndarray, Any]):
    """An episode of four images."""

    observation_space, action_space = spaces.Box(0, 255, (4, 4, 1), np.uint8), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._time = 0
        return self._image(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._time += 1
        return self._image(), 1.0, self._time == 4, False, {}

    def _image(self) -> np.ndarray:
        return np.full((4, 4, 1), 60 * self._time, np.uint8)


def test_an_encoder_sees_images_of_successors_too() -> None:
    encode = (lambda key: {"w": jax.random.normal(key, (16, 4))}), (lambda p, seen: jnp.ravel(seen / 255.0) @ p["w"])
    agent = jumar.PPO(Pictures, encoder=encode, net_arch=(4,), n_steps=8, batch_size=8, n_epochs=1)
    before = jax.device_get(agent._training.learner.parameters)
    agent.learn(8)
    after = agent._training.learner.parameters
    for half in ("policy", "critic"):
        assert np.any(before[half]["torso"]["encoder"]["w"] != after[half]["torso"]["encoder"]["w"])


def test_an_encoder_that_returns_no_number_is_named_where_the_policy_acts() -> None:
    """Zeros, which it is tried with, are fine; at larger observations the logarithm is that of a negative number."""
    encode = (lambda key: {"w": jnp.ones(3)}), (lambda p, seen: jnp.log(1.0 - seen) * p["w"])
    agent = jumar.PPO("jax/Pendulum-v1", encoder=encode, net_arch=())
    fine, wrong = np.zeros((2, 3), np.float32), np.array([[0, 0, 0], [0, 0, 2]], np.float32)
    agent.predict(fine)
    for deterministic in (True, False):
        with pytest.raises(
            JumarError, match=r"infinite for observation 1 of the batch; its encoder .*lambda.* must return"
        ):
            agent.predict(wrong, deterministic=deterministic)
    with pytest.raises(JumarError, match=r"policy computed something that is NaN or infinite; its encoder"):
        jumar.evaluate_policy(agent, "jax/Pendulum-v1", n_eval_episodes=1)


@pytest.mark.parametrize(
    ("make", "env", "said"),
    [
        (PPO, "jax/Pendulum-v1", r"returned an observation of which encoder .* makes nan at step 1;"),
        (SAC, "jax/Pendulum-v1", r"returned an observation of which encoder .* makes nan at step \d+;"),
        (PPO, "gymnasium/CartPole-v1", r"returned an observation of which encoder .* makes nan at step \d+;"),
        (SAC, "gymnasium/Pendulum-v1", r"was given a bad action .* Encoder .* makes nan of the observation"),
    ],
)
def test_an_encoder_that_returns_no_number_is_named_in_training(make: Any, env: str, said: str) -> None:
    encode = (lambda key: {"w": jnp.ones(1)}), (lambda p, seen: jnp.log(0.9 - jnp.abs(seen)) * p["w"])
    with pytest.raises(EnvironmentFault, match=said):
        make(env, encoder=encode, net_arch=()).learn(64)


def test_an_encoder_whose_derivatives_are_no_numbers_is_named() -> None:
    encode = (lambda key: {"w": jnp.zeros(3)}), (lambda p, seen: jnp.linalg.norm(seen * p["w"])[None])
    agent = PPO("jax/Pendulum-v1", encoder=encode, net_arch=())
    with pytest.raises(TrainingFailed, match=r"lower learning_rate, or look for derivatives of encoder .* not finite"):
        agent.learn(16)


def test_acktr_knows_no_layers_of_an_encoder() -> None:
    with pytest.raises(UsageError, match="acktr needs to know every layer"):
        jumar.ACKTR("jax/Pendulum-v1", encoder=((lambda key: {"x": jnp.ones(1)}), lambda p, seen: p["x"] * seen))


def test_the_command_line_imports_an_encoder_only_where_it_is_typed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Trained, stopped half way, resumed to the same bits, evaluated; a file alone imports nothing."""
    (tmp_path / "nets_of_mine.py").write_text(
        "import jax, jax.numpy as jnp\n"
        "class Mine:\n"
        "    def init(self, key):\n"
        "        return {'w': jax.random.normal(key, (4, 3))}\n"
        "    def apply(self, parameters, observation):\n"
        "        return jnp.tanh(observation @ parameters['w'])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    short = [
        "--n-steps",
        "32",
        "--batch-size",
        "32",
        "--n-epochs",
        "1",
        "--net-arch",
        "4",
        "--eval-every",
        "0",
        "--quiet",
    ]
    train = ["train", "ppo", "jax/CartPole-v1", *short, "--encoder", "nets_of_mine:Mine"]
    for name, steps in (("whole", 512), ("half", 256)):
        total = ["--total-timesteps", str(steps), "--run-dir", str(tmp_path / name)]
        assert main([*train, *total]) == 0
    half = str(tmp_path / "half")
    monkeypatch.delitem(sys.modules, "nets_of_mine")
    for command in (["resume", half, "--total-timesteps", "512"], ["evaluate", half]):
        assert main(command) == 2
        assert "repeat --encoder nets_of_mine:Mine" in capsys.readouterr().err
        assert "nets_of_mine" not in sys.modules
    again = ["--encoder", "nets_of_mine:Mine"]
    assert main(["resume", half, "--total-timesteps", "512", "--quiet", *again]) == 0
    assert main(["evaluate", half, "--episodes", "2", *again]) == 0
    for typed, said in (
        ("nets_of_mine", "must be written as module:Name"),
        ("nets_of_mine:Mien", "Mine"),
        ("nowhere_to_be_found:X", "there is no module"),
    ):
        assert main(["evaluate", half, "--encoder", typed]) == 2
        assert said in capsys.readouterr().err
