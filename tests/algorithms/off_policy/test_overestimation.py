"""The critics' overestimation against discounted returns that are summed up row by row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replays import make_update

from jumar.algorithms.off_policy.overestimation import Overestimation

GAMMA, T, N = 0.9, 37, 3


def history(seed: int = 0) -> dict[str, np.ndarray]:
    """Return steps in which episodes terminate, are cut, or both; the row after some ends is no experience."""
    draw = np.random.default_rng(seed)
    columns = {
        name: draw.normal(size=(T, N)).astype(np.float32)
        for name in ("values", "rewards", "bonuses", "successor_values")
    }
    valid = np.ones((T, N), bool)
    terminated, truncated = np.zeros((T, N), bool), np.zeros((T, N), bool)
    for t in range(T):
        if t:
            valid[t] = ~((terminated | truncated)[t - 1] & (draw.random(N) < 0.5))
        ends = draw.random(N) < 0.25
        terminated[t], truncated[t] = ends & (draw.random(N) < 0.6), ends & (draw.random(N) < 0.6)
    # A row that is no experience may say anything.
    known = np.ones((T, N), bool)
    return {**columns, "terminated": terminated, "truncated": truncated, "valid": valid, "known": known}


def directly(h: dict[str, np.ndarray], begin: int, end: int) -> float:
    """Return the mean of Q - G over the rows of the episodes that end in [begin, end)."""
    differences: list[float] = []
    for i in range(N):
        episode: list[int] = []
        for t in range(end):
            if not h["valid"][t, i]:
                continue
            episode.append(t)
            if not (h["terminated"][t, i] or h["truncated"][t, i]):
                continue
            if t >= begin and (h["terminated"][t, i] or h["known"][t, i]):
                differences += [
                    h["values"][row, i] - soft_return(h, i, episode[k:])
                    for k, row in enumerate(episode)
                    if h["known"][row, i]
                ]
            episode = []
    return float(np.mean(differences)) if differences else np.nan


def soft_return(h: dict[str, np.ndarray], i: int, rows: list[int]) -> float:
    total = 0.0
    for k, t in enumerate(rows):
        total += GAMMA**k * float(h["rewards"][t, i] + (h["bonuses"][t, i] if k else 0.0))
    last = rows[-1]
    if h["truncated"][last, i] and not h["terminated"][last, i]:
        total += GAMMA ** len(rows) * float(h["successor_values"][last, i])
    return total


def said(h: dict[str, np.ndarray], cuts: list[int]) -> list[float]:
    """Return what each of some iterations is told, which end at ``cuts``."""
    judged, begin, found = Overestimation.start(N), 0, []
    for end in cuts:
        columns: Any = {name: jnp.asarray(x[begin:end]) for name, x in h.items()}
        judged, mean = judged.after(**columns, gamma=GAMMA)
        found.append(float(mean))
        begin = end
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cuts", [[T], [5, 6, 20, T], [*range(4, T, 4), T]])
def test_overestimation_is_the_mean_of_q_minus_the_soft_return_however_iterations_cut_it(
    seed: int, cuts: list[int]
) -> None:
    h = history(seed)
    expected = [directly(h, begin, end) for begin, end in zip([0, *cuts], cuts, strict=False)]
    np.testing.assert_allclose(said(h, cuts), expected, rtol=1e-4, atol=1e-5)


def test_overestimation_by_literal_numbers() -> None:
    """Rewards 1, 2 and bonuses 10, 4 with gamma 0.9, cut, with a value of 20 after it.

    From the first row 1 + 0.9 (2 + 4) + 0.81 x 20 = 22.6, from the second 2 + 0.9 x 20 = 20: Q = 25 is 3.7 too much on average.
    """
    one = {
        "values": np.full((2, 1), 25.0),
        "rewards": np.array([[1.0], [2.0]]),
        "bonuses": np.array([[10.0], [4.0]]),
        "successor_values": np.full((2, 1), 20.0),
        "terminated": np.zeros((2, 1), bool),
        "truncated": np.array([[False], [True]]),
        "valid": np.ones((2, 1), bool),
        "known": np.ones((2, 1), bool),
    }

    def mean(**changes: Any) -> float:
        columns: Any = {name: jnp.asarray(x) for name, x in {**one, **changes}.items()}
        return float(Overestimation.start(1).after(**columns, gamma=GAMMA)[1])

    assert mean() == pytest.approx(3.7, rel=1e-5)
    assert mean(terminated=one["truncated"]) == pytest.approx(25.0 - (6.4 + 2.0) / 2.0, rel=1e-5)
    assert np.isnan(mean(truncated=one["terminated"]))
    # Of an unknown first row nothing is compared; what is worth after an unknown last one nobody can say.
    assert mean(known=np.array([[False], [True]])) == pytest.approx(5.0, rel=1e-5)
    assert np.isnan(mean(known=np.array([[True], [False]])))
    assert mean(terminated=one["truncated"], known=np.array([[True], [False]])) == pytest.approx(25.0 - 6.4, rel=1e-5)


@pytest.mark.parametrize("cuts", [[T], [5, 6, 20, T]])
def test_rows_whose_observation_is_not_known_are_left_out_and_no_other(cuts: list[int]) -> None:
    h = history(1)
    h["known"][:2] = h["known"][20:22] = False
    h["values"] = np.where(h["known"], h["values"], 1e6).astype(np.float32)
    expected = [directly(h, begin, end) for begin, end in zip([0, *cuts], cuts, strict=False)]
    np.testing.assert_allclose(said(h, cuts), expected, rtol=1e-4, atol=1e-5)


def test_an_episode_that_a_restart_cuts_is_forgotten() -> None:
    h, cut = history(), 3
    update = make_update("ddpg", n_envs=N)
    learner = update.init(jax.random.PRNGKey(0), N)
    first: Any = {name: jnp.asarray(x[:cut]) for name, x in h.items()}
    judged, _ = learner.judged.after(**first, gamma=GAMMA)
    assert np.any(judged.rows > 0.0), "an episode is under way"
    restarted = update.restart(learner._replace(judged=judged)).judged
    rest: Any = {name: jnp.asarray(x[cut:]) for name, x in h.items()}
    expected = directly({name: x[cut:] for name, x in h.items()}, 0, T - cut)
    assert float(restarted.after(**rest, gamma=GAMMA)[1]) == pytest.approx(expected, rel=1e-4)
    assert float(judged.after(**rest, gamma=GAMMA)[1]) != pytest.approx(expected, rel=1e-3)
