"""Exported policies, computed by onnxruntime, against the policies themselves."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces

from jumar import cli
from jumar.agents.actor import Actor, load_policy
from jumar.algorithms.registry import ALGORITHMS
from jumar.errors import JumarError, UsageError
from jumar.export import check, networks
from jumar.export.check import difference, named_inputs, question
from jumar.export.graph import FLOAT, Graph, Value, to_model
from jumar.export.policies import named_leaves, policy_graph
from jumar.networks.layers import CNN, Architecture, Convolution, Image
from jumar.policies.actions import ActionCodec
from jumar.policies.observations import Encoder
from jumar.policies.own_code import OwnCode
from jumar.policies.policy import Policy, PolicySettings, make_policy
from jumar.runs.files import sha256, tree_to_arrays
from jumar.runs.policy_files import write_policy_files
from jumar.spaces import space_to_json

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float64)
LOPSIDED = spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([1.0, 9.0], np.float32))
MIXED = spaces.Dict(
    goal=spaces.Discrete(3, start=-1),
    mean=spaces.Tuple([spaces.MultiDiscrete([2, 3], start=[0, 5]), spaces.Box(0, 1, (2, 2))]),
    secret=spaces.Box(-1, 1, (4,)),
    state=VECTOR,
    action_mask=spaces.MultiBinary(9),
)


class Case(NamedTuple):
    observations: gym.Space[Any]
    actions: gym.Space[Any]
    settings: dict[str, Any]
    action_mask: bool = False


CASES = {
    "Discrete, with masks, normalised": Case(
        VECTOR, spaces.Discrete(4, start=2), {"normalize_observations": True, "clip_observations": 1.5}, True
    ),
    "MultiDiscrete, from parts of a Dict with a mask in it": Case(
        MIXED,
        spaces.MultiDiscrete([3, 2, 4], start=[0, 1, -2]),
        {
            "activation": "gelu",
            "normalize_observations": True,
            "policy_observations": ("goal", "mean", "state"),
        },
    ),
    "MultiBinary, with masks, GRU, from bits": Case(
        spaces.MultiBinary((2, 3)),
        spaces.MultiBinary((2, 2)),
        {"recurrent": "gru", "recurrent_size": 5, "activation": "elu"},
        True,
    ),
    "Box, squashed, LSTM": Case(
        VECTOR,
        LOPSIDED,
        {"squash": True, "deviation": "clamped", "recurrent": "lstm", "recurrent_size": 5, "activation": "silu"},
    ),
    "Box of two axes, clipped in double precision, gSDE": Case(
        VECTOR, spaces.Box(-0.4, 0.1, (2, 2), np.float64), {"use_sde": True, "sde_clip_mean": 0.3}
    ),
    "Box of bytes, squashed, deviation by state, from an image that is flattened": Case(
        spaces.Box(0, 255, (4, 8, 8), np.uint8),
        spaces.Box(0, 255, (2,), np.uint8),
        {"squash": True, "deviation": "state", "features_extractor": "flatten", "activation": "relu"},
    ),
    "Box, Gaussian": Case(VECTOR, LOPSIDED, {"log_std_init": -1.0}),
    "Box, Gaussian of fixed deviation, linear": Case(
        VECTOR, LOPSIDED, {"net_arch": (), "head_bias": False, "deviation": "fixed", "log_std_init": -1.5}
    ),
    "Box, a sampler": Case(VECTOR, LOPSIDED, {"squash": True, "deviation": "sampler"}),
    "Box of one number, deterministic": Case(
        spaces.Box(-1, 1, ()), spaces.Box(-2, 2, ()), {"squash": True, "deviation": "none"}
    ),
    "a table": Case(
        spaces.Discrete(5, start=-1), spaces.Discrete(3), {"net_arch": (), "head_bias": False, "ortho_init": False}
    ),
}
CONVOLVED = {
    "a stack of frames, channels first": Case(spaces.Box(0, 255, (4, 36, 40), np.uint8), spaces.Discrete(3), {}),
    "a small image": Case(spaces.Box(0, 255, (9, 12, 3), np.uint8), spaces.Discrete(3), {"recurrent": "gru"}),
    "planes beside a vector": Case(
        spaces.Dict(map=spaces.Box(0, 1, (6, 7, 2), np.int8), state=VECTOR), LOPSIDED, {"normalize_observations": True}
    ),
}


def lively(case: Case, seed: int = 1, features: Any = None, encoder: Any = None) -> Actor:
    """A policy with parameters and a normaliser in which nothing is near 0."""
    settings = PolicySettings(**{"net_arch": (6,), **case.settings})
    policy = make_policy(case.observations, case.actions, settings, OwnCode.passed(features, encoder))
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
    parameters = jax.tree.map(
        lambda x: (random.standard_normal(x.shape) / np.sqrt(np.prod(x.shape[:-1]))).astype(np.float32), shapes
    )
    size = policy.encoder.vector_size
    moments = policy.encoder.initial_moments()._replace(
        mean=random.standard_normal(size).astype(np.float32),
        variance=random.uniform(0.1, 4.0, size).astype(np.float32),
    )
    return Actor(policy, parameters, moments, (case.observations, case.actions), algorithm="ppo", environment="Any-v0")


@pytest.mark.parametrize(
    "case",
    [*CASES.values(), *(pytest.param(case, marks=pytest.mark.slow) for case in CONVOLVED.values())],
    ids=[*CASES, *CONVOLVED],
)
def test_an_exported_policy_acts_as_the_policy(case: Case, tmp_path: Path) -> None:
    actor = lively(case)
    exported = actor.export(tmp_path / "policy.onnx", action_mask=case.action_mask)
    assert 0.0 <= exported.max_error < 2e-6
    # On other questions than those that it was compared on before it was written.
    asked = question(actor, case.action_mask, seed=7)
    expected = check.original(actor, asked)
    session = onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = dict(zip(names, session.run(None, named_inputs(actor.policy, asked)), strict=True))
    assert names[0] == "action"
    assert found.keys() == expected.keys()
    action, right = found.pop("action"), expected.pop("action")
    assert action.dtype == right.dtype == case.actions.dtype
    assert max(len({row.tobytes() for row in x}) for x in (action, *found.values())) > 2  # the answers vary
    if isinstance(case.actions, spaces.Box):
        np.testing.assert_allclose(action, right, rtol=1e-5, atol=1e-5)
        assert all(np.asarray(row) in case.actions for row in action)
    else:
        np.testing.assert_array_equal(action, right)
    for name, x in found.items():
        np.testing.assert_allclose(x, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("space", [LOPSIDED, spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)])
def test_there_is_a_graph_of_the_policy_of_every_method(space: gym.Space[Any]) -> None:
    policies: dict[Policy, list[str]] = {}
    for algorithm in ALGORITHMS.values():
        settings = algorithm.settings()
        with contextlib.suppress(UsageError):  # the method is not for this space
            policy = make_policy(VECTOR, space, PolicySettings.of(settings))
            algorithm.make(settings, policy)
            policies.setdefault(policy, []).append(algorithm.name)
    for policy in policies:
        shapes = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        graph = policy_graph(policy, zeros, policy.encoder.initial_moments(), (VECTOR, space))
        onnx.checker.check_model(to_model(graph, "", {}, "0"), full_check=True)
    made = [name for names in policies.values() for name in names]
    assert len(made) > 9
    assert "ppo" in made


def test_a_mask_and_the_start_of_an_episode_change_what_a_policy_does(tmp_path: Path) -> None:
    case = CASES["MultiBinary, with masks, GRU, from bits"]
    actor = lively(case)
    file = actor.export(tmp_path / "policy.onnx", action_mask=True).file
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs = {
        "observation": np.ones((1, 2, 3), np.int8),
        "episode_start": np.zeros(1, bool),
        "h_in": np.ones((1, 5), np.float32),
    }

    def bits(*allowed: tuple[int, int], **more: Any) -> list[int]:
        mask = np.array([allowed], bool).reshape(1, 8)
        return session.run(["action"], {**inputs, "action_mask": mask, **more})[0].ravel().tolist()

    assert bits((1, 0), (0, 1), (1, 0), (0, 1)) == [0, 1, 0, 1]
    assert bits((0, 1), (1, 0), (0, 1), (1, 0)) == [1, 0, 1, 0]
    free = {**inputs, "action_mask": np.ones((1, 8), bool)}
    begun, blank = ({**free, "episode_start": np.ones(1, bool)}, {**free, "h_in": np.zeros((1, 5), np.float32)})
    h, cleared, zeros = (session.run(["h_out"], x)[0] for x in (free, begun, blank))
    np.testing.assert_array_equal(cleared, zeros)
    assert np.abs(h - cleared).max() > 0.01


# -- parts ------------------------------------------------------------------------------------------------------------


def test_a_convolutional_network_is_that_of_the_layers() -> None:
    layers = (Convolution(3, 2, 2), Convolution(2, 1, 3))
    network = CNN(Image(5, 6, 2), Architecture(layers, "SAME", 4))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.PRNGKey(0))
    parameters = jax.tree.map(lambda x: random.standard_normal(x.shape).astype(np.float32), shapes)
    images = random.integers(0, 256, (3, 5, 6, 2)).astype(np.uint8)
    expected = np.asarray(jax.jit(network.apply)(parameters, images))
    for channels_first in (False, True):
        graph = Graph(("y",))
        seen = np.moveaxis(images, -1, 1) if channels_first else images
        x = graph.input(Value("x", np.dtype(np.uint8), seen.shape[1:], ""))
        y = networks.cnn(graph, "image_0", network, parameters, x, channels_first)
        graph.output(Value("y", FLOAT, (4,), ""), y)
        model = to_model(graph, "", {}, "0").SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"x": seen})[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (VECTOR, ["observation"]),
        (spaces.Dict(b=spaces.Dict(x=VECTOR, y=VECTOR), a=VECTOR), ["a", "b/x", "b/y"]),
        (spaces.Dict(state=VECTOR, action=VECTOR), ["observation/action", "observation/state"]),
        (spaces.Dict({"": VECTOR, "h_in": VECTOR}), ["observation/", "observation/h_in"]),
        (spaces.Tuple([VECTOR, spaces.Discrete(2)]), ["observation/0", "observation/1"]),
    ],
    ids=str,
)
def test_inputs_are_called_like_the_parts_of_the_observation(space: Any, names: list[str]) -> None:
    found = [name for _, name in named_leaves(Encoder.of(space, normalise=False))]
    assert sorted(found) == names


def test_names_that_cannot_be_told_apart_or_written_are_refused() -> None:
    twice = spaces.Dict({"a/b": VECTOR, "a": spaces.Dict(b=VECTOR)})
    with pytest.raises(UsageError, match="both called 'a/b' as inputs; rename one"):
        named_leaves(Encoder.of(twice, normalise=False))
    with pytest.raises(UsageError, match="is no Unicode"):
        named_leaves(Encoder.of(spaces.Dict({"\ud800": VECTOR}), normalise=False))


def test_a_policy_is_asked_about_extremes_and_within_its_space() -> None:
    actor = lively(CASES["MultiDiscrete, from parts of a Dict with a mask in it"])
    asked, again = (question(actor, False, seed=2) for _ in range(2))
    rows = [jax.tree.map(lambda x: x[i], asked.observation) for i in range(16)]
    assert all(row in actor.observation_space for row in rows)
    assert [row["goal"] for row in rows[:2]] == [-1, 1]
    assert [row["mean"][0].tolist() for row in rows[:2]] == [[0, 5], [1, 7]]
    assert [row["state"].tolist() for row in rows[:2]] == [[-10.0] * 3, [10.0] * 3]
    masks = asked.observation["action_mask"]
    assert actor.policy.actions.leaves_a_choice(masks.astype(bool)).all()
    assert 0.2 < masks.mean() < 0.9
    jax.tree.map(np.testing.assert_array_equal, asked, again)


@pytest.mark.parametrize(
    ("space", "name", "found", "expected", "right"),
    [
        (LOPSIDED, "action", [[0.5, 2.0]], {"action": [[0.25, 2.0]]}, 0.25 / 2.0),
        (LOPSIDED, "mean", [[0.5]], {"mean": [[0.25]]}, 0.25),
        (LOPSIDED, "mean", [[np.nan]], {"mean": [[0.25]]}, np.nan),
        (LOPSIDED, "mean", [0.25], {"mean": [[0.25]]}, np.inf),
        (spaces.Discrete(3), "logits", [[-1e9, 2.0]], {"logits": [[-1e9, 4.0]]}, 0.5),
        (spaces.Discrete(3), "logits", [[-2e9, 4.0]], {"logits": [[-1e9, 4.0]]}, np.inf),
    ],
)
def test_numbers_differ_in_units_of_the_largest(space: Any, name: str, found: Any, expected: Any, right: float) -> None:
    wanted = {key: np.array(x, np.float32) for key, x in expected.items()}
    error = difference(name, np.array(found, np.float32), wanted, ActionCodec.of(space))
    assert error == right or (np.isnan(error) and np.isnan(right))


def test_choices_differ_by_how_much_better_one_is_than_the_other() -> None:
    def error(space: gym.Space[Any], found: Any, action: Any, logits: Any) -> float:
        expected = {"action": np.array(action), "logits": np.array(logits, np.float32)}
        return difference("action", np.array(found), expected, ActionCodec.of(space))

    three = spaces.Discrete(3, start=5)
    assert error(three, [5, 6], [5, 6], [[3.0, 1.0, 2.0], [0.0, 1.0, 0.0]]) == 0.0
    assert error(three, [5, 6], [5, 5], [[3.0, 1.0, 2.0], [3.0, 1.5, 0.0]]) == 0.5
    assert error(three, [6], [5], [[0.5, 0.5, 0.0]]) == 0.0  # equally good
    assert error(three, [8], [5], [[3.0, 1.0, 2.0]]) == np.inf
    pair = spaces.MultiDiscrete([2, 3])
    assert error(pair, [[1, 2]], [[1, 0]], [[0.0, 4.0, 2.0, 0.0, 1.0]]) == 0.25
    assert error(spaces.MultiBinary(2), [[1, 1]], [[1, 0]], [[2.0, -0.5]]) == 0.25


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_says_what_it_is_and_is_the_same_each_time(tmp_path: Path) -> None:
    actor = lively(CASES["a table"])
    files = [actor.export(str(tmp_path / name)).file for name in ("one.onnx", "two.onnx")]
    assert files[0].read_bytes() == files[1].read_bytes()
    model = onnx.load(files[0])
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert (found["algorithm"], found["environment"]) == ("ppo", "Any-v0")
    assert json.loads(found["observation_space"]) == space_to_json(spaces.Discrete(5, start=-1))
    assert json.loads(found["inputs"]) == {"observation": {"dtype": "int64", "shape": ["batch"]}}
    assert json.loads(found["outputs"])["logits"] == {"dtype": "float32", "shape": ["batch", 3]}
    assert "input observation: int64 [batch], observation: one of 5 from -1" in model.doc_string
    assert model.graph.input[0].doc_string == "observation: one of 5 from -1"
    saved = save(actor, tmp_path / "saved")
    assert found["policy_sha256"] == sha256((saved / "policy.safetensors").read_bytes())
    again = load_policy(saved).export(tmp_path / "three.onnx")
    assert again.file.read_bytes() == files[0].read_bytes()


def save(actor: Actor, folder: Path, **more: Any) -> Path:
    """Write a policy of the case "a table" to a folder, alone."""
    case = CASES["a table"]
    arrays = tree_to_arrays({"parameters": actor.parameters, "observation_moments": actor.moments})
    description = {
        "step": 0,
        "policy": PolicySettings(**case.settings).to_json(),
        "features": None,
        "encoder": None,
        "observation_space": space_to_json(case.observations),
        "action_space": space_to_json(case.actions),
        "algorithm": actor.algorithm,
        "environment": actor.environment,
    }
    write_policy_files(folder, arrays, {**description, **more})
    return folder


class Shifted(Actor):
    """A policy that does something else than its parameters say."""

    def predict(self, *arguments: Any, **more: Any) -> tuple[np.ndarray, Any]:
        action, state = super().predict(*arguments, **more)
        return action + np.float32(1e-3), state


def test_a_file_that_differs_from_the_policy_is_not_written(tmp_path: Path) -> None:
    actor = lively(CASES["Box of one number, deterministic"])
    actor.__class__ = Shifted
    with pytest.raises(
        JumarError, match=r"is not the original: on 16 observations it differs by \S+e-04, more than the 1e-05"
    ):
        actor.export(tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_policy_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    actor = lively(CASES["a table"])
    actor.parameters["head"]["logits"]["kernel"][0, 0] = np.nan
    with pytest.raises(JumarError, match="parameters/head/logits/kernel of the policy is not finite"):
        actor.export(tmp_path / "policy.onnx")


def test_paths_formats_and_packages_are_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = lively(CASES["a table"])
    (tmp_path / "there.onnx").symlink_to(tmp_path / "nowhere")
    wrong = {
        "there.onnx": "exists; remove it, or choose another name",
        "policy.pt": "does not end in .onnx",
        "no/policy.onnx": "the folder .*no does not exist; make it first",
        "": "is a folder; give the path of a file, such as .*policy.onnx",
    }
    for name, words in wrong.items():
        with pytest.raises(UsageError, match=words):
            actor.export(tmp_path / name)
    with pytest.raises(UsageError, match="'' is not the path of a file"):
        actor.export("")
    with pytest.raises(UsageError, match="unknown format 'torch'; known: onnx"):
        actor.export(tmp_path / "policy.onnx", "torch")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    with pytest.raises(UsageError, match=r"ONNX files need onnx, which is not installed: pip install 'jumar\[onnx\]'"):
        actor.export(tmp_path / "policy.onnx")


def test_what_no_graph_can_be_made_of_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.onnx"
    with pytest.raises(UsageError, match=r"an action space .* has no action masks; leave action_mask out"):
        lively(CASES["Box of one number, deterministic"]).export(file, action_mask=True)

    def products(vector: Any, action: Any) -> Any:
        return vector * (action + 1)

    with pytest.raises(UsageError, match=r"has features of your own \(.*products\)"):
        lively(Case(VECTOR, spaces.Discrete(2), {}), features=products).export(file)

    def first(key: Any) -> Any:
        return {"w": np.ones(3, np.float32)}

    def apply(parameters: Any, observation: Any) -> Any:
        return observation * parameters["w"]

    with pytest.raises(UsageError, match="has an encoder of your own"):
        lively(Case(VECTOR, spaces.Discrete(2), {}), encoder=(first, apply)).export(file)


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_file_beside_the_policy(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save(lively(CASES["a table"]), tmp_path / "saved")
    assert cli.main(["export", str(folder), "--format", "onnx", "--action-mask"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(
        f"Written to {folder / 'policy.onnx'}; on 16 observations it differs from the policy by "
    )
    assert lines[1:] == [
        "  input   observation  int64 [batch]",
        "  input   action_mask  bool [batch, 3]",
        "  output  action       int64 [batch]",
        "  output  logits       float32 [batch, 3]",
    ]
    other = tmp_path / "other.onnx"
    assert cli.main(["export", str(folder), "--out", str(other), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"file": str(other), "format": "onnx", "max_error": 0.0}
    assert other.is_file()


def test_the_command_refuses_in_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    actor = lively(CASES["a table"])
    folder = save(actor, tmp_path / "saved")

    def refused(*words: str, code: int = 2) -> str:
        assert cli.main(["export", *words]) == code
        output, errors = capfd.readouterr()
        assert output == ""
        assert errors.startswith("jumar: error: ")
        assert errors.count("\n") == 1
        return errors

    assert "there is no run at" in refused(str(tmp_path / "nothing"))
    assert "is not a run directory: it has no config.json" in refused(str(folder), "--best")
    (folder / "policy.onnx").touch()
    assert "policy.onnx exists; remove it, or choose another name" in refused(str(folder))
    own = save(actor, tmp_path / "own", encoder="sets:SetEncoder")
    assert "has an encoder of your own (sets:SetEncoder), and only networks of Jumar's can be" in refused(str(own))
    own = save(actor, tmp_path / "linear", features="products")
    assert "has features of your own (products)" in refused(str(own))
    damaged = save(actor, tmp_path / "damaged") / "policy.json"
    damaged.write_text(damaged.read_text().replace('"step": 0', '"step": 1'))
    assert "it does not match its digest" in refused(str(damaged.parent), code=1)
    assert not list(tmp_path.glob("*/policy.onnx*"))[1:]


# -- the page ---------------------------------------------------------------------------------------------------------


PAGE = Path(__file__).parents[2] / "docs" / "export.md"
with_page = pytest.mark.skipif(not PAGE.is_file(), reason="the pages are not part of an installed package")


def listings() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def run(listing: str, scope: dict[str, Any]) -> None:
    exec(compile(listing, "export.md", "exec"), scope)  # noqa: S102 (a text of this repository)


@with_page
@pytest.mark.parametrize(
    ("number", "settings"),
    [(0, {}), (2, {"recurrent": "lstm", "recurrent_size": 5})],
    ids=["without memory", "recurrent"],
)
def test_the_listings_of_the_page_act_as_the_policy(number: int, settings: dict[str, Any], capsys: Any) -> None:
    environment = gym.make("CartPole-v1")
    actor = lively(Case(environment.observation_space, environment.action_space, settings), seed=3)
    actor.export("policy.onnx")
    scope: dict[str, Any] = {}
    run(listings()[number], scope)
    observation, _ = environment.reset(seed=0)
    state, total, over = None, 0.0, False
    while not over:
        action, state = actor.predict(observation, state)
        observation, reward, terminated, truncated, _ = environment.step(action)
        over, total = terminated or truncated, total + float(reward)
    assert capsys.readouterr().out == f"{total}\n"
    np.testing.assert_array_equal(scope["observation"], observation)
    if number == 0:
        run(listings()[4], scope)
        assert "algorithm ppo\n" in capsys.readouterr().out


@with_page
def test_the_listing_for_observations_of_parts_acts_as_the_policy() -> None:
    space = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (3,), np.float32), "n": spaces.Discrete(4)})
    actor = lively(Case(space, spaces.Discrete(5), {}), seed=3)
    actor.export("policy.onnx")
    observation = {"x": np.array([0.5, -0.2, 0.9], np.float32), "n": 2}
    scope: dict[str, Any] = {"policy": onnxruntime.InferenceSession("policy.onnx"), "observation": observation}
    run(listings()[1], scope)
    assert scope["action"] == actor.predict(observation)[0]


@with_page
@pytest.mark.slow
def test_the_listing_of_the_page_drives_the_robot() -> None:
    envpool = pytest.importorskip("envpool")
    robot = envpool.make_gymnasium("Go1JoystickFlatTerrain-v1", num_envs=1)
    settings = {"policy_observations": ("state",), "normalize_observations": True, "net_arch": (32, 32)}
    actor = lively(Case(robot.observation_space, robot.action_space, settings))
    actor.export("walker.onnx")
    scope: dict[str, Any] = {}
    listing = listings()[3]
    assert "range(500)" in listing
    run(listing.replace("range(500)", "range(3)"), scope)
    again = scope["policy"].run(["action"], {"state": scope["observation"]["state"]})[0]
    right, _ = actor.predict({"state": scope["observation"]["state"]})
    np.testing.assert_allclose(again, right, rtol=0, atol=1e-5)
    assert scope["action"].shape == (1, 12)
