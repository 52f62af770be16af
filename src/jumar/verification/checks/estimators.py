"""Estimators of advantages and values: their means over all trajectories, and how fast samples come near."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.estimators import advantages
from jumar.lab import tabular
from jumar.lab.precision import compiled_in_double
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.verification import estimates
from jumar.verification.compare import gap
from jumar.verification.enumeration import ACTED, GAMMA, LENGTH, everything, exact, process
from jumar.verification.estimates import DOUBLE
from jumar.verification.registry import check


@check("estimators/gae", "mean with exact values against the exact advantage, lambda 0, 0.5 and 1", DOUBLE, quick=True)
def gae() -> float:
    all_of, (values, action_values) = everything(), estimates.endless()
    here, after = values[all_of.states], values[all_of.successors]
    wanted = action_values - values[:, None]
    return max(
        estimates.mean_error(estimates.gae(here, after, estimates.rows_ending(ends), gae_lambda), wanted)
        for ends in ("truncated", "batch")
        for gae_lambda in (0.0, 0.5, 1.0)
    )


@check("estimators/n-step", "mean over 1, 2 and 3 steps, then exact values, against the exact Q", DOUBLE, quick=True)
def n_step() -> float:
    all_of, (values, action_values) = everything(), estimates.endless()
    found = estimates.n_steps(values[all_of.successors], estimates.rows_ending("truncated"))
    return max(estimates.mean_error(returns, action_values) for returns in found)


@check("estimators/reward-to-go", "mean of whole episodes against the exact Q; values count for nothing", DOUBLE, True)
def reward_to_go() -> float:
    anything = np.random.default_rng(0).normal(size=everything().shape)
    return estimates.mean_error(
        estimates.to_go(anything, estimates.rows_ending("terminated")), exact().action_values[0]
    )


@check("estimators/cut-returns", "mean of cut episodes with exact values behind them against the exact Q", DOUBLE, True)
def cut_returns() -> float:
    values, action_values = estimates.endless()
    found = [
        estimates.to_go(values[everything().successors], estimates.rows_ending(ends)) for ends in ("truncated", "batch")
    ]
    return max(estimates.mean_error(each, action_values) for each in found)


@check("estimators/whole-returns", "returns of whole episodes, the same in all rows, against their sums", DOUBLE, True)
def whole_returns() -> float:
    rows = estimates.rows_ending("terminated")
    sums = (GAMMA ** np.arange(LENGTH)) @ rows["rewards"]
    return gap(estimates.full(rows), np.broadcast_to(sums, everything().shape))


SENTINEL = 1e6
"""A value that would show wherever it came in."""


@check("estimators/terminations", "what a critic's value behind a termination changes", 0.0, quick=True)
def terminations() -> float:
    rows, zeros = estimates.rows_ending("terminated"), np.zeros(everything().shape)
    loud = np.where(rows["terminated"], SENTINEL, 0.0)
    return max(gap(x, y) for x, y in zip(_estimated(zeros, rows), _estimated(loud, rows), strict=True))


def _estimated(successor_values: np.ndarray, rows: Any) -> list[np.ndarray]:
    zeros = np.zeros(everything().shape)
    return [
        estimates.gae(zeros, successor_values, rows, 0.5),
        *estimates.n_steps(successor_values, rows)[1:],
        estimates.to_go(successor_values, rows),
        estimates.v_trace(zeros, successor_values, rows, zeros, np.inf)[1],
        estimates.retrace(zeros, successor_values, rows, zeros),
    ]


@check(
    "estimators/time-limits",
    "what the true successor's value at a time limit adds to its row, against gamma",
    1e-9,
    True,
)
def time_limits() -> float:
    rows, zeros = estimates.rows_ending("truncated"), np.zeros(everything().shape)
    loud = np.where(rows["truncated"], SENTINEL, 0.0)
    before, after = _estimated(zeros, rows), _estimated(loud, rows)
    return max(
        gap((y[-1] - x[-1]) / SENTINEL, np.full(everything().shape[1], GAMMA))
        for x, y in zip(before, after, strict=True)
    )


@check("estimators/episode-borders", "what the next episode's rewards change before the border", 0.0, quick=True)
def episode_borders() -> float:
    zeros, worst = np.zeros(everything().shape), 0.0
    border = np.zeros(everything().shape, bool)
    border[1] = True
    for kind in ("terminated", "truncated"):
        rows = {**estimates.rows_ending("batch"), kind: border}
        louder = {**rows, "rewards": rows["rewards"] + np.where(np.arange(LENGTH)[:, None] > 1, SENTINEL, 0.0)}
        pairs = zip(_estimated(zeros, rows), _estimated(zeros, louder), strict=True)
        worst = max(worst, *(gap(x[:2], y[:2]) for x, y in pairs))
    return worst


@check(
    "estimators/discounted-states", "the weights of rows against gamma to the number of steps before them", DOUBLE, True
)
def discounted_states() -> float:
    rows = estimates.rows_ending("terminated")

    @compiled_in_double
    def weights(rewards: Any, terminated: Any, truncated: Any) -> Any:
        zeros = jnp.zeros_like(rewards)
        steps = advantages.Steps.on_policy(rewards, zeros, zeros, terminated, truncated)
        return advantages.DiscountedStates(advantages.RewardToGo(GAMMA), GAMMA)(steps).weights

    wanted = np.broadcast_to(GAMMA ** np.arange(LENGTH)[:, None], everything().shape)
    return gap(weights(rows["rewards"], rows["terminated"], rows["truncated"]), wanted)


SIZES = (64, 256, 1024, 4096)
SEEDS = 64


@check(
    "estimators/rate", "slope of the error of GAE's mean over the number of trajectories, its distance from -1/2", 0.1
)
def rate() -> float:
    r"""Over 64 batches of each size; the slope has a standard deviation of some 0.02, a bias would bring it to 0."""
    known = exact()

    @compiled_in_double
    def batches(mdp: TabularMDP, logits: Any, values: Any, keys: Any) -> Any:
        def batch(key: Any) -> Any:
            drawn = tabular.draw(mdp, Categorical(logits), key, SIZES[-1], LENGTH)
            states, rewards = drawn.states.T, drawn.rewards.T
            ended = jnp.zeros(rewards.shape, bool).at[-1].set(True)
            here, nothing = values[jnp.arange(LENGTH)[:, None], states], jnp.zeros(rewards.shape, bool)
            after = jnp.concatenate([here[1:], jnp.zeros_like(here[:1])])
            estimates = advantages.gae(rewards, here, after, ended, nothing, GAMMA, 0.9)[0]
            errors = estimates + here[0] - jnp.sum(jnp.asarray(mdp.initial) * values[0])
            return jnp.stack([jnp.mean(errors[:n]) for n in SIZES])

        return jax.lax.map(batch, keys)

    keys = np.asarray(jax.random.split(jax.random.PRNGKey(3), SEEDS))
    errors = np.sqrt(np.mean(np.square(batches(process(), np.log(ACTED), known.values, keys)), 0))
    return abs(float(np.polyfit(np.log(SIZES), np.log(errors), 1)[0]) + 0.5)


@check(
    "estimators/expected-sarsa",
    "advantage and mean target of actor-critic with exact Q against exact A and Q",
    DOUBLE,
    True,
)
def expected_sarsa() -> float:
    all_of, (values, action_values) = everything(), estimates.endless()
    rows = estimates.rows_ending("truncated")

    @compiled_in_double
    def estimated(here: Any, after: Any, taken: Any, rows: Any) -> Any:
        steps = advantages.Steps.on_policy(values=here, successor_values=after, **rows)
        found = advantages.ExpectedSarsa(GAMMA)(steps._replace(action_values=taken))
        return found.advantages, found.targets

    taken = all_of.of(action_values)
    found, targets = estimated(values[all_of.states], values[all_of.successors], taken, rows)
    return max(gap(found, taken - values[all_of.states]), estimates.mean_error(targets, action_values))


@check(
    "estimators/time-baseline",
    "returns less their mean at the same step, rows of weight 0 left out",
    DOUBLE,
    quick=True,
)
def time_baseline() -> float:
    rows, counted = estimates.rows_ending("terminated"), np.ones(everything().shape)
    counted[:, ::3] = 0.0

    @compiled_in_double
    def estimated(rows: Any, counted: Any) -> Any:
        zeros = jnp.zeros_like(counted)
        steps = advantages.Steps.on_policy(values=zeros, successor_values=zeros, **rows)._replace(weights=counted)
        part = advantages.TimeBaseline(advantages.RewardToGo(GAMMA))
        return part(steps).advantages, advantages.RewardToGo(GAMMA)(steps).advantages

    found, returns = estimated(rows, counted)
    means = np.sum(counted * returns, 1) / np.sum(counted, 1)
    return gap(found, returns - means[:, None])
