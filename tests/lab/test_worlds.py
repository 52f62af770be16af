"""Grid worlds and chains: against printed numbers, closed forms and Gymnasium's own tables, and as environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from jax import Array

import jumar
from jumar.envs.compiled import reset_batch, step_batch
from jumar.envs.compiled_check import load_user_environment
from jumar.errors import UsageError
from jumar.lab import grids, tabular, worlds
from jumar.lab.dynamic_programming import greedy, optimal_action_values, optimal_policy, optimal_values
from jumar.lab.families import network_policy
from jumar.lab.grids import arrows, cells, grid_world, numbers
from jumar.lab.tabular import TabularEnvironment, TabularMDP
from jumar.policies.distributions import Categorical

# -- processes --------------------------------------------------------------------------------------------------------


def test_a_step_that_may_slip_by_hand() -> None:
    """Two cells and a goal: S.G over P#C. From the middle to the right: 1 - slip the goal, half of it each to both sides."""
    mdp = grid_world("S.G/P#C", slip=0.2, step_reward=-1.0, goal_reward=5.0, pit_reward=-7.0, cliff_reward=-20.0)
    assert cells("S.G/P#C") == [(0, 0), (0, 1), (0, 2), (1, 0)]
    np.testing.assert_allclose(mdp.transitions[1, 1], [0, 0.2, 0.8, 0])
    np.testing.assert_allclose(mdp.rewards[1, 1], 0.8 * 5 - 0.2)
    np.testing.assert_allclose(
        mdp.transitions[0, 2], [0.1, 0.1, 0, 0.8]
    )  # down into the pit; right, and left at the edge
    np.testing.assert_allclose(mdp.rewards[0, 2], 0.8 * -7 - 0.2)
    np.testing.assert_array_equal(mdp.initial, [1, 0, 0, 0])
    np.testing.assert_array_equal(tabular.terminal_states(mdp), [False, False, True, True])
    below = grid_world("S./C.", slip=0.5, step_reward=0.0, cliff_reward=-20.0)
    np.testing.assert_allclose(below.transitions[0, 2], [0.75, 0.25, 0])  # off the cliff, so back at the start
    np.testing.assert_allclose(below.rewards[0, 2], 0.5 * -20)


@pytest.mark.parametrize(
    ("gymnasium_table", "moves", "ours"),
    [
        (lambda: FrozenLakeEnv(is_slippery=False).P, (3, 2, 1, 0), (grids.FROZEN_LAKE, 0.0, (0.0, 1.0, 0.0, 0.0))),
        (lambda: FrozenLakeEnv(is_slippery=True).P, (3, 2, 1, 0), (grids.FROZEN_LAKE, 2 / 3, (0.0, 1.0, 0.0, 0.0))),
        (lambda: CliffWalkingEnv().P, (0, 1, 2, 3), (grids.CLIFF, 0.0, (-1.0, -1.0, 0.0, -100.0))),
    ],
    ids=["frozen lake", "slippery lake", "cliff walk"],
)
def test_the_tables_are_those_of_gymnasium(gymnasium_table: Callable[[], Any], moves: Any, ours: Any) -> None:
    rows, slip, (step, goal, pit, cliff) = ours
    mdp = grid_world(rows, slip=slip, step_reward=step, goal_reward=goal, pit_reward=pit, cliff_reward=cliff)
    width = len(grids.parse_map(rows)[0])
    theirs, places = gymnasium_table(), cells(rows)
    number = {i * width + j: state for state, (i, j) in enumerate(places)}
    terminal = tabular.terminal_states(mdp)
    for (i, j), state in zip(places, range(mdp.n_states), strict=True):
        for action, move in enumerate(moves):
            if terminal[state]:  # where its tables go on from the goal
                continue
            transitions, reward = np.zeros(mdp.n_states), 0.0
            for chance, successor, paid, ended in theirs[i * width + j][move]:
                transitions[number[int(successor)]] += chance
                reward += chance * paid
                assert bool(ended) == terminal[number[int(successor)]]
            np.testing.assert_allclose(mdp.transitions[state, action], transitions, atol=1e-12)
            np.testing.assert_allclose(mdp.rewards[state, action], reward, atol=1e-12)


PRINTED_UTILITIES = [0.812, 0.868, 0.918, 0.762, 0.660, 0.705, 0.655, 0.611, 0.388]
"""Russell and Norvig, *Artificial Intelligence*, 3rd edition, figure 17.3."""


def test_the_utilities_of_the_four_by_three_world_are_those_printed() -> None:
    """The book pays for the state that one is in, and so once more than here, and without a discount."""
    mdp = grid_world(grids.FOUR_BY_THREE, slip=0.2, gamma=1.0, horizon=200, step_reward=-0.04)
    values = optimal_values(mdp)[0]
    np.testing.assert_allclose(np.delete(values, [3, 6]) - 0.04, PRINTED_UTILITIES, atol=5e-4)
    np.testing.assert_array_equal(values[[3, 6]], 0.0)
    assert arrows(grids.FOUR_BY_THREE, Categorical(optimal_policy(mdp).logits[0])) == "→→→G\n↑#↑P\n↑←←←"


def test_the_way_along_the_cliff_takes_13_steps_and_a_slippery_one_keeps_off() -> None:
    sure, slippery = worlds.cliff_walk(gamma=0.9), worlds.cliff_walk(slip=0.2, gamma=0.9)
    values, careful = jax.jit(optimal_action_values), []
    for mdp in (sure, slippery):
        with jax.enable_x64(True):
            q = np.asarray(values(mdp))
            picture = arrows(grids.CLIFF, greedy(jnp.asarray(q)))
        careful.append(picture.splitlines())
        if mdp is sure:
            np.testing.assert_allclose(q.max(-1) @ mdp.initial, -(1.0 - 0.9**13) / 0.1, rtol=1e-12)
    assert careful[0] == ["→→→→→→→→→→→↓"] * 3 + ["↑CCCCCCCCCCG"]
    # Next to the cliff it goes up; at the start it leans against the edge of the map, until it slips upwards.
    assert careful[1] == ["→→→→→→→→→→→↓"] * 2 + ["↑↑↑↑↑↑↑↑↑↑↑↓", "←CCCCCCCCCCG"]


def test_a_corridor_is_worth_the_discounts_of_the_steps_left() -> None:
    mdp = grid_world("S....G", gamma=0.9)
    np.testing.assert_allclose(optimal_values(mdp), [0.9**4, 0.9**3, 0.9**2, 0.9, 1.0, 0.0], rtol=1e-12, atol=1e-15)


def test_the_four_rooms_have_104_cells_and_20_steps_from_start_to_goal() -> None:
    mdp = worlds.four_rooms(slip=0.0, gamma=0.9)
    assert mdp.n_states == 104
    np.testing.assert_allclose(optimal_values(mdp) @ mdp.initial, 0.9**19, rtol=1e-9)


def test_the_chain_pays_what_is_printed_for_going_on() -> None:
    """Strens: 3677 in 1000 steps; a step in the long run is worth .2 (2) + .8^5 (10) = 3.6768."""
    mdp = worlds.chain(gamma=1.0, horizon=100)
    on = Categorical(jnp.tile(jnp.array([0.0, -1e9]), (5, 1)))
    values = tabular.state_values(mdp, on)[:, 0]
    np.testing.assert_allclose(values[0] - values[1], 3.6768, rtol=1e-10)
    assert np.all(optimal_policy(mdp).probs[0, :, 0] == 1.0)
    np.testing.assert_array_equal(
        optimal_policy(mdp).probs[-1, :, 1], [1, 1, 1, 1, 0]
    )  # the last step takes what is near
    np.testing.assert_allclose(mdp.rewards, [[0.4, 1.6]] * 4 + [[8.4, 3.6]])
    np.testing.assert_allclose(mdp.transitions[3], [[0.2, 0, 0, 0, 0.8], [0.8, 0, 0, 0, 0.2]])


def test_a_random_walk_in_closed_form() -> None:
    walk = Categorical(jnp.zeros((7, 2)))
    values = tabular.state_values(worlds.random_walk(gamma=1.0, horizon=300), walk)[0]
    np.testing.assert_allclose(values * 6, [0, 1, 2, 3, 4, 5, 0], atol=1e-9)
    gamma = 0.9
    values = tabular.state_values(worlds.random_walk(gamma=gamma), walk)
    up, down = ((1 + sign * np.sqrt(1 - gamma**2)) / gamma for sign in (1, -1))  # the roots of gamma (x^2 + 1) / 2 = x
    i = np.arange(6)
    np.testing.assert_allclose(values[:6], (up**i - down**i) / (up**6 - down**6) / gamma, rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(worlds.random_walk(4).initial, [0, 0, 1, 0, 0, 0])


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_of_policies_and_values() -> None:
    rows = ["S.#", "C.G"]
    logits = np.zeros((4, 4))
    logits[0, 1] = logits[2, 1] = 2.0
    assert arrows(rows, Categorical(jnp.asarray(logits))) == "→+#\nC→G"
    assert numbers(rows, np.array([-1.0, 10.25, 0.125, 0.0]), 1) == "-1.0 10.2    #\n   C  0.1  0.0"
    with pytest.raises(UsageError, match=r"shape \(2, 4, 4\) does not fit the map; it must be \(4, 4\)"):
        arrows(rows, Categorical(jnp.zeros((2, 4, 4))))
    with pytest.raises(UsageError, match=r"shape \(3,\) do not fit the map"):
        numbers(rows, np.zeros(3))


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "the map is empty"),
        ([], "the map is empty"),
        ("S..\n.G", "row 1 of the map, '.G', has 2 cells; row 0 has 3"),
        ("S.X", "row 0 of the map has the letter 'X'; cells are . S G P C and #"),
        (12, "rows=12 is not a map; it must be a text"),
        ([12], r"rows=\[12\] is not a map"),
        ("..G", "the map has no start; mark at least one cell with S"),
    ],
)
def test_what_is_no_map_is_refused(rows: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        grid_world(rows)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: grid_world("S.G", slip=1.5), r"slip=1.5 must be a probability, in \[0, 1\]"),
        (lambda: grid_world("S.G", slip=float("nan")), "slip=nan must be a probability"),
        (lambda: worlds.chain(slip=-0.1), "slip=-0.1 must be a probability"),
        (lambda: worlds.GridWorld("S.G", slip="often"), "slip=often must be a probability"),  # type: ignore[arg-type]
        (lambda: grid_world("S.G", gamma=1.0), r"gamma=1.0 must be in \[0, 1\], and below 1 without a horizon"),
        (lambda: worlds.cliff_walk(horizon=0), "horizon=0 must be at least 1"),
        (lambda: worlds.random_walk(horizon=2.5), "horizon=2.5 must be at least 1 and a whole number"),  # type: ignore[arg-type]
        (lambda: grid_world("S.G", goal_reward=float("inf")), "goal_reward=inf must be a finite number"),
        (lambda: worlds.chain(far="away"), "far=away must be a finite number"),  # type: ignore[arg-type]
        (lambda: worlds.chain(gamma="high"), "gamma=high must be in"),  # type: ignore[arg-type]
        (lambda: worlds.chain(1), "n=1 must be a whole number of at least 2"),
        (lambda: worlds.random_walk(0), "n=0 must be a whole number of at least 1"),
        (lambda: worlds.CliffWalk(time_limit=0), "time_limit=0 must be at least 1"),
        (lambda: worlds.CliffWalk(time_limit=None), "time_limit=None must be at least 1"),
        (lambda: worlds.Chain(horizon=5, time_limit=2.5), "time_limit=2.5 must be at least 1, and a whole"),  # type: ignore[arg-type]
    ],
)
def test_numbers_that_are_out_of_range_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()


# -- environments -----------------------------------------------------------------------------------------------------

N, STEPS = 4000, 24


def played(env: TabularEnvironment, policy: Categorical) -> tuple[np.ndarray, ...]:
    """Return states, actions, rewards, both kinds of ends, and successors of N copies, ``[STEPS, N]``."""

    @jax.jit
    def play(mdp: TabularMDP, key: Array) -> tuple[Array, ...]:
        states, observations = reset_batch(env, mdp, key, N)

        def step(now: tuple, key: Array) -> tuple:
            states, observations = now
            actions = Categorical(policy.logits[observations]).sample(jax.random.fold_in(key, 1))
            states, after = step_batch(env, mdp, key, states, actions)
            found = (observations, actions, after.rewards, after.terminated, after.truncated, after.successors)
            return (states, after.observations), found

        return jax.lax.scan(step, (states, observations), jax.random.split(key, STEPS))[1]

    return tuple(map(np.asarray, play(env.params, jax.random.PRNGKey(0))))


def test_an_environment_has_the_probabilities_and_the_worth_of_its_process() -> None:
    env = worlds.GridWorld("S.P/C.G", slip=0.3, gamma=0.8, horizon=STEPS, time_limit=None, step_reward=-0.1)
    mdp, policy = env.mdp, Categorical(jax.random.normal(jax.random.PRNGKey(2), (5, 4)))
    states, actions, rewards, terminated, truncated, successors = played(env, policy)
    assert not truncated.any()
    np.testing.assert_array_equal(terminated[:-1], tabular.terminal_states(mdp)[successors[:-1]])
    np.testing.assert_array_equal(states[0], 0)
    # Each transition as often as its table says.
    counts = np.zeros(mdp.transitions.shape)
    np.add.at(counts, (states, actions, successors), 1)
    tried = counts.sum(-1)[..., None]
    expected = tried * np.asarray(mdp.transitions)
    assert np.all(tried[~tabular.terminal_states(mdp)] > 300)
    np.testing.assert_array_less(np.abs(counts - expected), 5.0 * np.sqrt(expected * (1 - mdp.transitions)) + 1e-9)
    np.testing.assert_allclose(rewards, np.asarray(mdp.rewards)[states, actions], rtol=1e-6)
    # The return of the first episode of each copy.
    first = np.cumsum(np.vstack([np.zeros((1, N)), terminated[:-1]]), 0) == 0
    returns = (0.8 ** np.arange(STEPS) @ (rewards * first)).astype(np.float64)
    worth = tabular.performance(mdp, policy)
    assert abs(returns.mean() - worth) < 5.0 * returns.std() / np.sqrt(N)
    assert returns.std() < 20 * abs(worth)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("GridWorld", {"rows": "S.G/.#P", "slip": 0.1}),
        ("CliffWalk", {"slip": 0.1}),
        ("FourRooms", {"time_limit": 50}),
        ("Chain", {"n": 4, "near": 1.0}),
        ("RandomWalk", {}),
    ],
)
def test_worlds_are_environments_by_their_ids(name: str, kwargs: dict[str, Any]) -> None:
    env = load_user_environment(f"jumar.lab.worlds:{name}", kwargs)
    assert isinstance(env, TabularEnvironment)
    assert env.observation_space.n == env.mdp.n_states
    assert env.action_space.n == env.mdp.n_actions
    assert env.time_limit is not None


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean slip"):
        load_user_environment("jumar.lab.worlds:CliffWalk", {"slipp": 0.1})


@pytest.mark.slow
def test_an_agent_that_learns_reaches_the_optimum_of_a_small_grid() -> None:
    gamma = 0.9
    env = worlds.GridWorld("S..P/.#../...G", slip=0.1, gamma=gamma, time_limit=60)
    agent = jumar.PPO(
        env, seed=0, n_envs=32, n_steps=32, batch_size=256, n_epochs=4, gamma=gamma, net_arch=(), learning_rate=0.02
    )
    agent.learn(30 * 32 * 32)
    actor = agent.actor()
    learnt = network_policy(env.mdp, actor.policy, actor.parameters, actor.moments)
    best = float(optimal_values(env.mdp) @ env.mdp.initial)
    assert float(tabular.performance(env.mdp, learnt)) > 0.95 * best > 0.4
    assert float(tabular.performance(env.mdp, greedy(learnt.logits))) > 0.99 * best
