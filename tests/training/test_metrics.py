"""Episode statistics against a brute-force loop, and health in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.algorithms.on_policy.symptoms import symptoms
from jumar.training.metrics import WINDOW, EpisodeStatistics, Health


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    n_envs=st.integers(1, 4),
    end_rate=st.sampled_from([0.05, 0.5, 1.0]),
    restart_before=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_statistics_are_those_of_a_loop_over_single_steps(
    seed: int, lengths: list[int], n_envs: int, end_rate: float, restart_before: int
) -> None:
    """Over several rollouts, with rows that are no experience, and episodes cut by a restart."""
    draw = np.random.default_rng(seed)
    statistics = EpisodeStatistics(n_envs)
    open_episodes: list[list[tuple[float, float]]] = [[] for _ in range(n_envs)]
    finished: list[list[tuple[float, float]]] = []
    for i, length in enumerate(lengths):
        if i == restart_before:
            statistics.restart()
            open_episodes = [[] for _ in range(n_envs)]
        rewards = draw.normal(size=(length, n_envs)).astype(np.float32)
        valid = draw.random((length, n_envs)) < 0.8
        ended = (draw.random((length, n_envs)) < end_rate) & valid
        rewards[~valid] = 1e9
        costs = 1.0 - 2.0 * rewards
        told, before = statistics.add(rewards, ended, valid, costs), len(finished)
        for t in range(length):
            for n in range(n_envs):
                if valid[t, n]:
                    open_episodes[n].append((float(rewards[t, n]), float(costs[t, n])))
                if ended[t, n]:
                    finished.append(open_episodes[n])
                    open_episodes[n] = []
        new = [sum(cost for _, cost in episode) for episode in finished[before:]]
        assert told.episodes == len(new)
        assert told.mean_cost == (pytest.approx(np.mean(new), abs=1e-5) if new else None)
    last = finished[-WINDOW:]
    if not last:
        assert statistics.mean_return is None
        assert statistics.mean_length is None
        assert statistics.mean_cost is None
        return
    totals = np.mean([np.sum(episode, axis=0) for episode in last], axis=0)
    assert (statistics.mean_return, statistics.mean_cost) == pytest.approx(tuple(totals), abs=1e-5)
    assert statistics.mean_length == np.mean([len(episode) for episode in last])
    np.testing.assert_array_equal(statistics.state.open_lengths, [len(episode) for episode in open_episodes])


def test_the_window_holds_the_last_hundred_episodes() -> None:
    statistics = EpisodeStatistics(1)
    rewards = np.arange(150, dtype=np.float32)[:, None]
    always = np.ones((150, 1), bool)
    statistics.add(rewards[:120], always[:120], always[:120])
    assert statistics.mean_return == np.mean(np.arange(20, 120))
    statistics.add(rewards[120:], always[120:], always[120:])
    assert statistics.mean_return == np.mean(np.arange(50, 150))
    assert statistics.state.returns.shape == (WINDOW,)


def test_episodes_without_a_cost_or_with_several_are_left_out_of_its_mean() -> None:
    statistics = EpisodeStatistics(1)
    rewards, always = np.ones((2, 1), np.float32), np.ones((2, 1), bool)
    for costs in (None, np.ones((2, 1, 3))):
        assert statistics.add(rewards, always, always, costs) == (2, None)
        assert statistics.mean_cost is None
    statistics.add(rewards, always, always, np.array([[2.0], [5.0]]))
    assert statistics.mean_cost == 3.5
    assert statistics.mean_return == 1.0
    assert np.isnan(statistics.state.costs).sum() == WINDOW - 2


def test_an_episode_spans_rollouts() -> None:
    statistics = EpisodeStatistics(1)
    never, valid = np.zeros((3, 1), bool), np.ones((3, 1), bool)
    statistics.add(np.full((3, 1), 2.0, np.float32), never, valid)
    assert statistics.mean_return is None
    statistics.add(np.full((3, 1), 5.0, np.float32), np.array([[False], [True], [False]]), valid)
    assert statistics.mean_return == 16.0
    assert statistics.mean_length == 5.0


SOUND = {
    "train/mean_kl": 0.01,
    "train/clip_fraction": 0.1,
    "train/explained_variance": 0.5,
    "train/policy_objective_before": 0.0,
    "train/policy_objective_after": 0.1,
    "train/gradient_steps": 40.0,
    "train/stopped_early": 0.0,
}


def complaints(iterations: int, **changes: float | None) -> list[str]:
    metrics: dict[str, Any] = {**SOUND, **{f"train/{name}": x for name, x in changes.items()}}
    health = Health(symptoms)
    return [words for _ in range(iterations) for words in health.check(metrics)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"explained_variance": -2.0}, "the critic predicts the returns worse than their mean"),
        ({"mean_kl": 0.5}, "mean KL 0.5"),
        ({"clip_fraction": 0.9}, "90 % of the ratios are clipped"),
        ({"mean_kl": 0.0}, "do not change the policy"),
        ({"policy_objective_after": -0.1}, "lower their own objective"),
        ({"gradient_steps": 1.0, "stopped_early": 1.0}, "target_kl stops every update"),
        ({"counted": 0.0, "mean_kl": 0.0}, "no episode ends inside a rollout"),
        ({"unsound_step": 1.0, "step_fraction": 0.0, "mean_kl": 0.0}, "step is not a number"),
        (
            {"step_fraction": 0.0, "mean_kl": 0.0, "explained_variance": 0.02},
            "rejects every step; the critic explains 2 %",
        ),
        (
            {"step_fraction": 0.0, "mean_kl": 0.0, "explained_variance": None},  # without a critic
            "the line search rejects every step (10 iterations",
        ),
        ({"cg_blocked": 1.0}, "the Fisher matrix is singular"),
        ({"cg_residual": 0.95}, "leave 95 % of the gradient unsolved"),
    ],
)
def test_health_says_what_is_off_once_in_a_while(changes: dict[str, float], words: str) -> None:
    assert complaints(Health.PATIENCE - 1, **changes) == []
    said = complaints(Health.PATIENCE + Health.SILENCE - 1, **changes)
    assert len(said) == 1, "what was said is not repeated"
    assert words in said[0]
    assert len(complaints(Health.PATIENCE + Health.SILENCE, **changes)) == 2, "but it is not forgotten"


def test_health_is_silent_about_a_sound_run_and_about_what_is_not_measured() -> None:
    assert complaints(50) == []
    assert complaints(50, **dict.fromkeys((name.removeprefix("train/") for name in SOUND), None)) == []


def test_what_gives_up_its_objective_for_a_cost_beyond_the_limit_is_sound() -> None:
    assert complaints(50, policy_objective_after=-0.1, cost_excess=3.0) == []
    assert len(complaints(50, policy_objective_after=-0.1, cost_excess=-3.0)) == 1


def test_a_full_batch_update_of_one_step_is_no_early_stop() -> None:
    assert complaints(50, gradient_steps=1.0, stopped_early=0.0) == []


def test_trouble_that_passes_is_not_mentioned() -> None:
    health, said = Health(symptoms), []
    for i in range(60):
        said += health.check({**SOUND, "train/mean_kl": 0.5 if i % 8 else 0.01})
    assert said == []
