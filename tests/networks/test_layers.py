"""Networks: how they begin, their shapes, and every layer against an independent numpy computation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import stacked_decompositions
from numpy.lib.stride_tricks import sliding_window_view

from jumar.networks.layers import (
    ACTIVATIONS,
    AT_A_TIME,
    CNN,
    GRU,
    LSTM,
    MLP,
    PLANES,
    SMALL,
    Image,
    Linear,
    Torso,
    architecture_of,
    clear_where,
    of_successors,
    orthogonal,
    uniform_fan_in,
)

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(0)


def normals(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def randomised(parameters: Any) -> Any:
    """Return parameters of the same shapes with nothing 0 in them, not even biases."""
    return jax.tree.map(lambda x: 0.5 * normals(*x.shape), parameters)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# -- initialisers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("scale", [1.0, 0.01, math.sqrt(2)])
def test_orthogonal_matrices_have_orthonormal_rows_or_columns_times_the_scale(shape: Any, scale: float) -> None:
    matrix = np.asarray(orthogonal(KEY, shape, scale))
    gram = matrix.T @ matrix if shape[0] >= shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, scale**2 * np.eye(min(shape)), atol=1e-5 * scale**2)
    assert matrix.dtype == np.float32


def test_many_seeds_are_initialised_one_after_the_other_and_as_each_alone() -> None:
    networks = MLP(3, (4, 5)), LSTM(2, 3), CNN(Image(10, 10, 1), SMALL)

    def init(key: Any) -> Any:
        return [network.init(key) for network in networks]

    keys = jax.random.split(KEY, 3)
    assert stacked_decompositions(jax.vmap(init), keys) == []
    together, alone = jax.jit(jax.vmap(init))(keys), jax.jit(init)(keys[1])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, atol=1e-6), together, alone)


def test_uniform_matrices_fill_their_range() -> None:
    matrix = np.asarray(uniform_fan_in(KEY, (100, 200), 1.0))
    assert np.abs(matrix).max() <= 0.1
    assert matrix.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    assert abs(matrix.mean()) < 0.002


def test_layers_begin_with_their_gain_and_without_bias() -> None:
    parameters = MLP(8, (5, 5)).init(KEY)
    for layer in ("layer_0", "layer_1"):
        kernel = np.asarray(parameters[layer]["kernel"])
        np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(5), atol=1e-5)
        np.testing.assert_array_equal(parameters[layer]["bias"], np.zeros(5))
    assert np.abs(parameters["layer_1"]["kernel"] - parameters["layer_0"]["kernel"][:5]).max() > 0.1, "keys differ"
    torch_like = MLP(400, (50,), initialiser=uniform_fan_in).init(KEY)["layer_0"]["kernel"]
    assert 0.049 < float(jnp.abs(torch_like).max()) <= 0.05


def test_parameters_are_float32_with_64_bit_mode_on() -> None:
    torso = Torso(2, (Image(10, 10, 4),), (3,), "tanh", "lstm", 4)
    plain = MLP(3, (4,), initialiser=uniform_fan_in)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda key: (torso.init(key), plain.init(key), torso.initial_carry((2,))), KEY)
        features = {"vector": jnp.zeros((2, 2), jnp.float32), "image_0": jnp.zeros((2, 10, 10, 4), jnp.uint8)}
        output = jax.eval_shape(torso.apply, shapes[0], features, shapes[2], jnp.zeros(2, bool))
    assert {x.dtype for x in jax.tree.leaves((shapes, output))} == {jnp.dtype("float32")}


# -- feed-forward -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "silu"])
def test_mlp_is_its_layers_one_after_the_other(activation: str) -> None:
    functions = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "silu": lambda x: x * sigmoid(x),
    }
    mlp = MLP(3, (4, 2), activation)
    parameters, inputs = randomised(jax.eval_shape(mlp.init, KEY)), normals(5, 2, 3)
    x = inputs
    for i in range(2):
        layer = parameters[f"layer_{i}"]
        x = functions[activation](x @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(mlp.apply(parameters, inputs), x, atol=1e-5)  # type: ignore[arg-type]
    assert mlp.outputs == 2


def test_every_activation_is_zero_at_zero_and_rises() -> None:
    for name, function in ACTIVATIONS.items():
        assert float(function(jnp.float32(0.0))) == 0.0, name
        assert float(function(jnp.float32(2.0))) > 0.9, name


def test_mlp_without_layers_is_the_identity() -> None:
    mlp = MLP(3, ())
    inputs = jnp.asarray(normals(2, 3))
    np.testing.assert_array_equal(mlp.apply(mlp.init(KEY), inputs), inputs)
    assert mlp.outputs == 3


# -- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "flat_size"),
    [
        ((84, 84, 4), 7 * 7 * 64),  # 84 -> 20 -> 9 -> 7: the network of Mnih et al. 2015
        ((64, 64, 3), 4 * 4 * 64),  # 64 -> 15 -> 6 -> 4
        ((96, 72, 3), 8 * 5 * 64),  # 96 -> 23 -> 10 -> 8 and 72 -> 17 -> 7 -> 5
        ((36, 36, 1), 1 * 1 * 64),  # 36 -> 8 -> 3 -> 1: the smallest that the large kernels fit
        ((35, 84, 1), 18 * 42 * 64),
        ((10, 10, 4), 5 * 5 * 64),
        ((7, 4, 1), 4 * 2 * 64),
        ((1, 1, 1), 64),
        ((10, 10, 4, False), 8 * 8 * 16),  # the network of MinAtar
        ((84, 84, 4, False), 7 * 7 * 64),
    ],
)
def test_sizes_after_the_convolutions(shape: Any, flat_size: int) -> None:
    image = Image(*shape)
    cnn = CNN(image, dataclasses.replace(architecture_of(image), outputs=8))
    assert cnn.flat_size == flat_size
    parameters = jax.eval_shape(cnn.init, KEY)
    assert parameters["dense"]["kernel"].shape == (flat_size, 8)
    output = jax.eval_shape(cnn.apply, parameters, jnp.zeros((2, 3, *shape[:3]), jnp.uint8))
    assert output.shape == (2, 3, 8)


@pytest.mark.parametrize(("side", "padding", "is_bytes"), [(36, 0, True), (6, 1, True), (6, 0, False)])
def test_cnn_is_its_convolutions_one_after_the_other(side: int, padding: int, is_bytes: bool) -> None:
    image = Image(side, side, 2, is_bytes)
    cnn = CNN(image, dataclasses.replace(architecture_of(image), outputs=5))
    parameters = jax.tree.map(
        lambda x: normals(*x.shape) / math.sqrt(x.size / x.shape[-1]), jax.eval_shape(cnn.init, KEY)
    )
    images = RNG.integers(0, 256, (3, side, side, 2), np.uint8)
    x = images.astype(np.float64) / (255 if is_bytes else 1)
    for i, (kernel, stride, _) in enumerate(cnn.architecture.convolutions):
        # SAME padding of an odd total puts the odd pixel after the image.
        before, after = (padding if stride == 1 or x.shape[1] % 2 else 0), padding
        x = np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
        windows = sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
        layer = parameters[f"convolution_{i}"]
        x = np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, layer["kernel"]) + layer["bias"], 0)
    dense = parameters["dense"]
    expected = np.maximum(x.reshape(3, -1) @ dense["kernel"] + dense["bias"], 0)
    assert expected.max() > 0.01
    np.testing.assert_allclose(jax.jit(cnn.apply)(parameters, images), expected, atol=1e-6 * expected.max(), rtol=1e-5)


@pytest.mark.parametrize("n", [2, 4, 9])
def test_a_cnn_takes_many_images_in_pieces(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jumar.networks.layers.AT_ONCE", 4)
    cnn = CNN(Image(6, 6, 2, False), PLANES)
    parameters = cnn.init(KEY)
    images = normals(1, n, 6, 6, 2)
    one_by_one = np.stack([cnn._apply(parameters, image[None])[0] for image in images[0]])
    np.testing.assert_allclose(jax.jit(cnn.apply)(parameters, images)[0], one_by_one, atol=1e-6)  # type: ignore[arg-type]


def test_successors_that_were_seen_before_are_not_embedded_again() -> None:
    """Of 2 x 20 successors 11 differ from the next row's observation: more than are embedded at a time."""
    observations, successors = normals(2, 20, 3), np.zeros((2, 20, 3), np.float32)
    successors[:, :-1] = observations[:, 1:]
    successors[:, -1] = normals(2, 3)
    others = np.concatenate([np.arange(0, 14, 2), 20 + np.arange(1, 9, 2)])
    successors.reshape(40, 3)[others] = normals(11, 3)
    rows = []

    def apply(x: jax.Array) -> jax.Array:
        rows.append(x.shape[0])
        return jnp.cumsum(x, axis=-1)

    outputs = np.cumsum(observations, axis=-1)
    found = of_successors(apply, *map(jnp.asarray, (observations, outputs, successors)))
    np.testing.assert_allclose(found, np.cumsum(successors, axis=-1), atol=1e-6)
    assert rows == [2, AT_A_TIME], "traced once for the last rows, and once for the pieces of the others"


# -- memory -----------------------------------------------------------------------------------------------------------


def gru_step(parameters: Any, hidden: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Cho et al. 2014, gate by gate, from the columns of each gate."""
    n = hidden.shape[-1]
    ways = {}
    for i, gate in enumerate("rzn"):
        columns = slice(i * n, (i + 1) * n)
        ways[gate] = [
            values @ parameters[part]["kernel"][:, columns] + parameters[part]["bias"][columns]
            for part, values in (("input", x), ("hidden", hidden))
        ]
    reset, update = sigmoid(np.add(*ways["r"])), sigmoid(np.add(*ways["z"]))
    proposal = np.tanh(ways["n"][0] + reset * ways["n"][1])
    return (1 - update) * proposal + update * hidden


def lstm_step(parameters: Any, carry: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cell, hidden = carry
    n = hidden.shape[-1]
    gates = {}
    for i, gate in enumerate("ifgo"):
        columns = slice(i * n, (i + 1) * n)
        gates[gate] = sum(
            values @ parameters[part]["kernel"][:, columns] + parameters[part]["bias"][columns]
            for part, values in (("input", x), ("hidden", hidden))
        )
    cell = sigmoid(gates["f"] + 1) * cell + sigmoid(gates["i"]) * np.tanh(gates["g"])
    return cell, sigmoid(gates["o"]) * np.tanh(cell)


def test_gru_step_is_its_equations() -> None:
    core = GRU(3, 4)
    parameters, hidden, x = randomised(jax.eval_shape(core.init, KEY)), normals(2, 4), normals(2, 3)
    carry, output = jax.jit(core.apply)(parameters, jnp.asarray(hidden), jnp.asarray(x))
    np.testing.assert_allclose(output, gru_step(parameters, hidden, x), atol=1e-5)
    np.testing.assert_array_equal(carry, output)


def test_lstm_step_is_its_equations() -> None:
    core = LSTM(3, 4)
    parameters, before, x = randomised(jax.eval_shape(core.init, KEY)), (normals(2, 4), normals(2, 4)), normals(2, 3)
    carry, output = jax.jit(core.apply)(parameters, jax.tree.map(jnp.asarray, before), jnp.asarray(x))
    cell, hidden = lstm_step(parameters, before, x)
    np.testing.assert_allclose(carry[0], cell, atol=1e-5)
    np.testing.assert_allclose(carry[1], hidden, atol=1e-5)
    np.testing.assert_array_equal(output, carry[1])


def test_clearing_touches_only_the_entries_whose_episode_starts() -> None:
    carry = (jnp.ones((3, 2)), 2 * jnp.ones((3, 2)))
    result = clear_where(jnp.array([False, True, False]), carry)
    np.testing.assert_array_equal(result[0], [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(result[1], [[2, 2], [0, 0], [2, 2]])


# -- torso ------------------------------------------------------------------------------------------------------------

STARTS = np.array([[0, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0]], bool)


@pytest.mark.parametrize("recurrent", ["gru", "lstm"])
def test_unrolling_sequences_equals_stepping_and_clears_the_memory_at_starts(recurrent: str) -> None:
    torso = Torso(3, (), (4,), "tanh", recurrent, 5)
    parameters, features = randomised(jax.eval_shape(torso.init, KEY)), {"vector": normals(2, 7, 3)}
    carry = jax.tree.map(lambda x: normals(*x.shape), torso.initial_carry((2,)))
    latents, carries = jax.jit(torso.unroll)(parameters, features, carry, STARTS)
    assert latents.shape == (2, 7, 4)
    layer, step = parameters["mlp"]["layer_0"], gru_step if recurrent == "gru" else lstm_step
    apply, memory = jax.jit(torso.apply), carry
    for t in range(7):
        now = {"vector": features["vector"][:, t]}
        latent, stepped = apply(parameters, now, memory, STARTS[:, t])
        # The same by hand: an empty memory where an episode starts, then one step of the core and the layer after it.
        cleared = jax.tree.map(lambda x, t=t: np.where(STARTS[:, t, None], 0, x), memory)
        memory = step(parameters["core"], cleared, now["vector"])
        hidden = memory if isinstance(memory, np.ndarray) else memory[1]
        expected = np.tanh(hidden @ layer["kernel"] + layer["bias"])
        np.testing.assert_allclose(latent, expected, atol=1e-5)
        np.testing.assert_allclose(latents[:, t], expected, atol=1e-5)
        for mine, one, other in zip(*map(jax.tree.leaves, (memory, stepped, carries)), strict=True):
            np.testing.assert_allclose(one, mine, atol=1e-5)
            np.testing.assert_allclose(other[:, t], mine, atol=1e-5)


def test_torso_without_memory_computes_all_steps_alike() -> None:
    torso = Torso(3, (), (4,), "tanh", None, 5)
    parameters, features = randomised(jax.eval_shape(torso.init, KEY)), {"vector": normals(2, 7, 3)}
    latents, carries = torso.unroll(parameters, features, (), jnp.asarray(STARTS))  # type: ignore[arg-type]
    latent, carry = torso.apply(parameters, {"vector": features["vector"][:, 3]}, (), jnp.asarray(STARTS[:, 3]))
    assert carries == carry == torso.initial_carry((2,)) == ()
    np.testing.assert_allclose(latents[:, 3], latent, atol=1e-6)
    assert "core" not in parameters


def test_torso_joins_the_vector_and_every_image() -> None:
    torso = Torso(2, (Image(10, 10, 1), Image(10, 10, 4)), (), "tanh", None, 0)
    parameters = jax.tree.map(lambda x: 0.03 * normals(*x.shape), jax.eval_shape(torso.init, KEY))
    images = [RNG.integers(0, 256, (3, 10, 10, channels), np.uint8) for channels in (1, 4)]
    features = {"vector": normals(3, 2), "image_0": images[0], "image_1": images[1]}
    latent, _ = jax.jit(torso.apply)(parameters, features, (), np.zeros(3, bool))
    assert latent.shape == (3, torso.outputs) == (3, 2 + 512 + 512)
    np.testing.assert_array_equal(latent[:, :2], features["vector"])
    for i, start in ((0, 2), (1, 514)):
        alone = jax.jit(torso.cnns[i].apply)(parameters[f"image_{i}"], images[i])
        assert float(alone.max()) > 0.01
        np.testing.assert_allclose(latent[:, start : start + 512], alone, atol=1e-5)


def test_torso_widths_follow_from_its_parts() -> None:
    torso = Torso(3, (Image(10, 10, 1),), (7,), "relu", "gru", 5)
    assert (torso.joined, torso.outputs) == (515, 7)
    assert dataclasses.replace(torso, sizes=()).outputs == 5
    assert Linear(3, 2).init(KEY)["kernel"].shape == (3, 2)
