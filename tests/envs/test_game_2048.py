"""The compiled game 2048 against a plain one in Python, and the laws of its masks and new tiles."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import jumar
from jumar.envs.compiled import reset_batch, step_batch
from jumar.envs.compiled_check import check_compiled_environment
from jumar.envs.game_2048 import ACTIONS, Game2048, add_tile, legal_moves, move, slide
from jumar.envs.registry import list_environments, make_compiled, resolve
from jumar.errors import UsageError

KEY = jax.random.PRNGKey(0)
ENV = Game2048()
N, STEPS = 256, 256

Line = list[int]
Board = list[Line]


def plain_line(line: Line) -> tuple[Line, int]:
    """Push the tiles of a line to its beginning, as one would by hand; the tiles are values, 0 is an empty cell."""
    tiles, out, score = [tile for tile in line if tile], [], 0
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile:
            tile += tiles.pop(0)
            score += tile
        out.append(tile)
    return out + [0] * (4 - len(out)), score


def plain_move(board: Board, action: str) -> tuple[Board, int]:
    columns = action in ("up", "down")
    lines = [list(line) for line in zip(*board, strict=True)] if columns else [list(line) for line in board]
    step = -1 if action in ("down", "right") else 1
    pushed = [plain_line(line[::step]) for line in lines]
    lines = [line[::step] for line, _ in pushed]
    return [list(line) for line in zip(*lines, strict=True)] if columns else lines, sum(score for _, score in pushed)


def values(logs: np.ndarray) -> np.ndarray:
    return np.where(logs > 0, 2**logs, 0)


def random_boards(n: int) -> np.ndarray:
    """Boards from almost empty to full, with few kinds of tiles (many merges) and with many (few)."""
    rng = np.random.default_rng(5)
    kinds, filled = rng.integers(1, 12, (n, 1, 1)), rng.uniform(0.1, 1.2, (n, 1, 1))
    logs = rng.integers(1, kinds + 1, (n, 4, 4))
    return np.where(rng.uniform(size=(n, 4, 4)) < filled, logs, 0).astype(np.int32)


@pytest.mark.parametrize(
    ("line", "pushed", "score"),
    [
        ([2, 2, 2, 2], [4, 4, 0, 0], 8),
        ([4, 2, 2, 0], [4, 4, 0, 0], 4),
        ([4, 4, 8, 0], [8, 8, 0, 0], 8),
        ([2, 2, 2, 0], [4, 2, 0, 0], 4),
        ([2, 0, 0, 2], [4, 0, 0, 0], 4),
        ([0, 0, 0, 2], [2, 0, 0, 0], 0),
        ([8, 4, 2, 2], [8, 4, 4, 0], 4),
        ([2, 4, 8, 16], [2, 4, 8, 16], 0),
        ([65536, 65536, 2, 4], [131072, 2, 4, 0], 131072),
    ],
)
def test_a_line(line: Line, pushed: Line, score: int) -> None:
    assert plain_line(line) == (pushed, score)
    logs = np.array([int(tile).bit_length() - 1 if tile else 0 for tile in line], np.int32)
    found, made = slide(cast(jax.Array, logs))
    assert values(np.asarray(found)).tolist() == pushed
    assert float(made) == score


def test_moves_and_legality_equal_those_of_a_plain_implementation() -> None:
    boards = random_boards(5_000)
    actions = np.arange(4)
    moved, made = jax.device_get(
        jax.jit(jax.vmap(lambda action: move(jnp.asarray(boards), jnp.full(len(boards), action))))(actions)
    )
    legal = np.asarray(jax.jit(legal_moves)(boards))
    merges = illegal = 0
    for i, board in enumerate(values(boards).tolist()):
        for action, name in enumerate(ACTIONS):
            expected, score = plain_move(board, name)
            assert values(moved[action, i]).tolist() == expected
            assert made[action, i] == score
            assert legal[i, action] == (expected != board)
            merges, illegal = merges + (score > 0), illegal + (expected == board)
    assert merges > 5_000
    assert illegal > 500


def test_new_tiles_fall_on_empty_cells_alike_and_a_tenth_of_them_are_fours() -> None:
    board = np.zeros((4, 4), np.int32)
    board[0] = [1, 0, 2, 0]
    board[2, 1:] = 3
    n, empty = 65_536, np.flatnonzero(board.ravel() == 0)
    numbers = np.random.default_rng(1).uniform(size=(n, 2)).astype(np.float32)
    after = np.asarray(jax.jit(jax.vmap(lambda pair: add_tile(cast(jax.Array, board), pair, 0.1)))(numbers)).reshape(
        n, -1
    )
    new = after - board.ravel()
    assert np.all((new != 0).sum(1) == 1)
    counts = (new[:, empty] != 0).sum(0)
    assert counts.sum() == n
    expected = n / len(empty)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    tiles = new.sum(1)
    assert set(np.unique(tiles)) == {1, 2}
    assert abs(np.mean(tiles == 2) - 0.1) < 5 * np.sqrt(0.09 / n)


@pytest.mark.parametrize("number", [0.0, 1.0 - 2.0**-23])
def test_the_first_and_the_last_number_choose_the_first_and_the_last_empty_cell(number: float) -> None:
    pair = np.array([number, 0.5], np.float32)
    for filled in range(16):
        board = np.zeros(16, np.int32)
        board[:filled] = 4
        after = np.asarray(ADD(board.reshape(4, 4), pair)).ravel()
        assert np.flatnonzero(after != board).tolist() == [filled if number == 0.0 else 15]
    full = np.ones((4, 4), np.int32)
    np.testing.assert_array_equal(ADD(full, pair), full)


ADD = jax.jit(lambda board, numbers: add_tile(board, numbers, 0.1))


@pytest.fixture(scope="module")
def play() -> dict[str, np.ndarray]:
    """Random legal play of many copies: boards and masks before each step, and what the step gave."""

    def step(carry: Any, key: jax.Array) -> Any:
        states, observations = carry
        key, drawn = jax.random.split(key)
        mask = observations["action_mask"] > 0
        actions = jax.random.categorical(drawn, jnp.where(mask, 0.0, -jnp.inf))
        after, out = step_batch(ENV, ENV.params, key, states, actions)
        row = {
            "boards": states.board,
            "seen": observations["board"],
            "masks": mask,
            "actions": actions,
            "rewards": out.rewards,
            "terminated": out.terminated,
            "successors": out.successors["board"],
            "successor_masks": out.successors["action_mask"],
        }
        return (after, out.observations), row

    def run(key: jax.Array) -> dict[str, jax.Array]:
        start = reset_batch(ENV, ENV.params, key, N)
        return jax.lax.scan(step, start, jax.random.split(key, STEPS))[1]

    return {name: np.asarray(rows) for name, rows in jax.jit(run)(KEY).items()}


def test_a_step_is_the_move_and_one_new_tile(play: dict[str, np.ndarray]) -> None:
    boards, actions = play["boards"].reshape(-1, 4, 4), play["actions"].ravel()
    moved, made = jax.jit(move)(boards, actions)
    np.testing.assert_array_equal(play["rewards"].ravel(), made)
    new = play["successors"].reshape(-1, 16) - np.asarray(moved).reshape(-1, 16)
    assert np.all((new != 0).sum(1) == 1)
    assert set(np.unique(new.sum(1))) == {1, 2}
    np.testing.assert_array_equal(play["seen"], play["boards"])


def test_what_the_mask_allows_changes_the_board_and_the_game_ends_where_nothing_is_allowed(
    play: dict[str, np.ndarray],
) -> None:
    boards = play["boards"].reshape(-1, 4, 4)
    masks = play["masks"].reshape(-1, 4)
    moved = jax.jit(jax.vmap(lambda action: move(jnp.asarray(boards), jnp.full(len(boards), action))[0]))(np.arange(4))
    changed = np.any(np.asarray(moved) != boards, (-2, -1)).T
    np.testing.assert_array_equal(masks, changed)
    assert np.all(masks[np.arange(len(masks)), play["actions"].ravel()])
    np.testing.assert_array_equal(play["terminated"], ~np.any(play["successor_masks"], -1))
    assert play["terminated"].sum() > N / 2  # random games have some 120 moves
    assert not np.all(masks)


def test_new_games_have_two_tiles(play: dict[str, np.ndarray]) -> None:
    starts = np.concatenate(
        [play["boards"][:1].reshape(-1, 16), play["boards"][1:][play["terminated"][:-1]].reshape(-1, 16)]
    )
    assert np.all((starts != 0).sum(1) == 2)
    assert starts.max() == 2


def test_an_illegal_move_changes_nothing_and_is_worth_nothing() -> None:
    state, _ = ENV.reset(KEY, ENV.params)
    board = np.zeros((4, 4), np.int32)
    board[:, 0] = [1, 2, 1, 2]
    step = jax.jit(lambda action: ENV.step(KEY, state._replace(board=jnp.asarray(board)), action, ENV.params))
    for name in ("up", "down", "left"):
        after, observation, reward, terminated, _, _ = step(ACTIONS.index(name))
        np.testing.assert_array_equal(after.board, board)
        np.testing.assert_array_equal(observation["action_mask"], [0, 1, 0, 0])
        assert float(reward) == 0.0
        assert not terminated
    assert np.count_nonzero(step(ACTIONS.index("right"))[0].board) == 5


def test_the_numbers_of_the_game_are_parameters() -> None:
    params = ENV.params._replace(four_probability=1.0)
    boards = reset_batch(ENV, params, KEY, 8)[0].board
    assert set(np.unique(boards)) == {0, 2}


@pytest.mark.parametrize("observation", ["one-hot", "log2"])
def test_it_keeps_the_convention_of_compiled_environments(observation: str) -> None:
    env = Game2048(observation=observation, max_episode_steps=3)
    check_compiled_environment(env, "2048-v0")
    state, seen = env.reset(KEY, env.params)
    space = cast(spaces.Dict, env.observation_space)
    kind = spaces.MultiDiscrete if observation == "one-hot" else spaces.Box
    assert isinstance(space["board"], kind)
    assert space.contains(
        {"board": np.asarray(seen["board"], space["board"].dtype), "action_mask": np.asarray(seen["action_mask"])}
    )
    step = jax.jit(env.step)
    cut = []
    for _ in range(3):
        state, seen, _, _, truncated, _ = step(KEY, state, jnp.argmax(seen["action_mask"]), env.params)
        cut.append(bool(truncated))
    assert cut == [False, False, True]
    np.testing.assert_array_equal(seen["board"], state.board)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"observation": "log"}, "unknown observation of Game2048 'log'; did you mean log2"),
        ({"max_episode_steps": 0}, "max_episode_steps=0 must be a whole number of at least 1"),
        ({"max_episode_steps": True}, "max_episode_steps=True"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Game2048(**settings)


def test_it_is_found_by_its_id() -> None:
    env_id = resolve("jax/2048-v0", {"observation": "log2"})
    assert make_compiled(env_id) == Game2048(observation="log2")
    assert ("jax/2048-v0", "Jumar's own, compiled") in list_environments()
    with pytest.raises(UsageError, match="did you mean jax/2048-v0"):
        resolve("jax/2048")


@pytest.mark.slow
def test_ppo_learns_it_and_never_makes_an_illegal_move(play: dict[str, np.ndarray]) -> None:
    """Random play scores 1,100 in the mean, PPO some 1,900 after so many steps."""
    agent = jumar.PPO("jax/2048-v0", n_envs=16, n_steps=128, learning_rate=1e-3, batch_size=256, seed=1)
    agent.learn(150_000)
    mean, _ = jumar.evaluate_policy(agent, "jax/2048-v0", n_eval_episodes=100)
    assert cast(float, mean) > 1_500.0
    hard = np.flatnonzero(play["masks"].reshape(-1, 4).sum(-1) == 1)[:512]  # one move alone is legal
    boards, masks = play["boards"].reshape(-1, 4, 4)[hard], play["masks"].reshape(-1, 4)[hard]
    for deterministic in (True, False):
        seen = {"board": boards, "action_mask": masks.astype(np.int8)}
        actions, _ = agent.predict(seen, deterministic=deterministic)
        np.testing.assert_array_equal(actions, np.argmax(masks, -1))
    assert len(hard) > 20
