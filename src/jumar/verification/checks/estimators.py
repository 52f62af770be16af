"""Estimators of advantages, values and action values: their means over all trajectories, and how fast samples come near."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.estimators import advantages, importance
from jumar.lab import tabular
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.verification.compare import gap, in_double
from jumar.verification.enumeration import ACTED, ACTIONS, GAMMA, LENGTH, OTHER, STATES, everything, exact, process
from jumar.verification.registry import check

DOUBLE = 1e-12
"""What double precision leaves of sums of some hundred terms."""


@functools.cache
def _endless() -> tuple[np.ndarray, np.ndarray]:
    """Return V ``[S]`` and Q ``[S, A]`` of the policy that acts, in the process without an end."""

    @in_double
    def values(mdp: TabularMDP, logits: Any) -> Any:
        policy = Categorical(logits)
        return tabular.state_values(mdp, policy), tabular.action_values(mdp, policy)

    return values(process(None), np.log(ACTED))


@functools.cache
def _rows(ends: str) -> dict[str, Any]:
    """Return what estimators are given: all trajectories, which end ``terminated``, ``truncated`` or with the batch."""
    all_of = everything()
    last = np.zeros(all_of.shape, bool)
    last[-1] = True
    never = np.zeros(all_of.shape, bool)
    return {
        "rewards": all_of.of(process().rewards),
        "terminated": last if ends == "terminated" else never,
        "truncated": last if ends == "truncated" else never,
    }


@in_double
def _gae(values: Any, successor_values: Any, rows: Any, gae_lambda: Any) -> Any:
    return advantages.gae(values=values, successor_values=successor_values, gamma=GAMMA, gae_lambda=gae_lambda, **rows)


@in_double
def _n_steps(successor_values: Any, rows: Any) -> Any:
    return [
        advantages.n_step_returns(successor_values=successor_values, gamma=GAMMA, n=n, **rows) for n in (1, 2, LENGTH)
    ]


@in_double
def _to_go(successor_values: Any, rows: Any) -> Any:
    return advantages.discounted_returns(successor_values=successor_values, gamma=GAMMA, **rows)


@in_double
def _full(rows: Any) -> Any:
    return advantages.full_returns(gamma=GAMMA, **rows)


@in_double
def _v_trace(values: Any, successor_values: Any, rows: Any, log_ratios: Any, bound: Any) -> Any:
    return importance.v_trace(
        values=values,
        successor_values=successor_values,
        log_ratios=log_ratios,
        gamma=GAMMA,
        gae_lambda=1.0,
        rho_bar=bound,
        c_bar=bound,
        **rows,
    )


@in_double
def _retrace(action_values: Any, successor_values: Any, rows: Any, log_ratios: Any) -> Any:
    return importance.retrace(
        action_values=action_values,
        successor_values=successor_values,
        log_ratios=log_ratios,
        gamma=GAMMA,
        retrace_lambda=0.9,
        **rows,
    )


def _mean_error(estimates: Any, wanted: np.ndarray) -> float:
    """Return how far the mean of the first step's estimates is from ``[S, A]``, over the states where episodes begin."""
    all_of = everything()
    estimates, totals, counts = np.asarray(estimates)[0], np.zeros((STATES, ACTIONS)), np.zeros((STATES, ACTIONS))
    np.add.at(totals, (all_of.states[0], all_of.actions[0]), estimates)
    np.add.at(counts, (all_of.states[0], all_of.actions[0]), 1.0)
    begun = counts > 0
    return gap(totals[begun] / counts[begun], np.asarray(wanted)[begun])


def _log_ratios() -> np.ndarray:
    return everything().of(np.log(OTHER / ACTED))


@check("estimators/gae", "mean with exact values against the exact advantage, lambda 0, 0.5 and 1", DOUBLE, quick=True)
def gae() -> float:
    all_of, (values, action_values) = everything(), _endless()
    here, after = values[all_of.states], values[all_of.successors]
    wanted = action_values - values[:, None]
    return max(
        _mean_error(_gae(here, after, _rows(ends), gae_lambda), wanted)
        for ends in ("truncated", "batch")
        for gae_lambda in (0.0, 0.5, 1.0)
    )


@check("estimators/n-step", "mean over 1, 2 and 3 steps, then exact values, against the exact Q", DOUBLE, quick=True)
def n_step() -> float:
    all_of, (values, action_values) = everything(), _endless()
    found = _n_steps(values[all_of.successors], _rows("truncated"))
    return max(_mean_error(returns, action_values) for returns in found)


@check("estimators/reward-to-go", "mean of whole episodes against the exact Q; values count for nothing", DOUBLE, True)
def reward_to_go() -> float:
    anything = np.random.default_rng(0).normal(size=everything().shape)
    return _mean_error(_to_go(anything, _rows("terminated")), exact().action_values[0])


@check("estimators/cut-returns", "mean of cut episodes with exact values behind them against the exact Q", DOUBLE, True)
def cut_returns() -> float:
    values, action_values = _endless()
    found = [_to_go(values[everything().successors], _rows(ends)) for ends in ("truncated", "batch")]
    return max(_mean_error(each, action_values) for each in found)


@check("estimators/whole-returns", "returns of whole episodes, the same in all rows, against their sums", DOUBLE, True)
def whole_returns() -> float:
    rows = _rows("terminated")
    sums = (GAMMA ** np.arange(LENGTH)) @ rows["rewards"]
    return gap(_full(rows), np.broadcast_to(sums, everything().shape))


def _of_other() -> tuple[np.ndarray, np.ndarray]:
    """Return V ``[T + 1, S]`` and Q ``[T + 1, S, A]`` of the policy that did not act; nothing is worth anything at the end."""
    known = exact(other=True)
    return tuple(np.concatenate([x, np.zeros_like(x[:1])]) for x in (known.values, known.action_values))  # type: ignore[return-value]


@check(
    "estimators/v-trace",
    "mean target by another policy's trajectories, values wrong, against the exact V",
    DOUBLE,
    True,
)
def v_trace() -> float:
    all_of, draw = everything(), np.random.default_rng(1)
    wrong = draw.normal(size=(LENGTH + 1, STATES))
    time = np.arange(LENGTH)[:, None]
    here, after = wrong[time, all_of.states], wrong[time + 1, all_of.successors]
    _, targets = _v_trace(here, after, _rows("terminated"), _log_ratios(), np.inf)
    first = all_of.states[0]
    means = np.bincount(first, targets[0], STATES) / np.maximum(np.bincount(first, minlength=STATES), 1)
    begun = np.bincount(first, minlength=STATES) > 0
    return gap(means[begun], exact(other=True).values[0][begun])


@check("estimators/v-trace-bounds", "mean target with cut ratios at the exact V, which is where it stays", DOUBLE, True)
def v_trace_bounds() -> float:
    r"""With cut ratios it stays at the value of :math:`\pi_{\bar\rho} \propto \min(\bar\rho \mu, \pi)`."""
    all_of = everything()
    cut = np.minimum(ACTED, OTHER)
    cut = cut / cut.sum(-1, keepdims=True)

    @in_double
    def values_of(mdp: TabularMDP, logits: Any) -> Any:
        return tabular.state_values(mdp, Categorical(logits))

    values = np.concatenate([values_of(process(), np.log(cut)), np.zeros((1, STATES))])
    time = np.arange(LENGTH)[:, None]
    here, after = values[time, all_of.states], values[time + 1, all_of.successors]
    _, targets = _v_trace(here, after, _rows("terminated"), _log_ratios(), 1.0)
    first = all_of.states[0]
    counts = np.bincount(first, minlength=STATES)
    means = np.bincount(first, targets[0], STATES)[counts > 0] / counts[counts > 0]
    return gap(means, values[0][counts > 0])


@check(
    "estimators/retrace",
    "mean target by another policy's trajectories at the exact Q, which is where it stays",
    DOUBLE,
    True,
)
def retrace() -> float:
    all_of, (values, action_values) = everything(), _of_other()
    time = np.arange(LENGTH)[:, None]
    taken = action_values[time, all_of.states, all_of.actions]
    found = _retrace(taken, values[time + 1, all_of.successors], _rows("terminated"), _log_ratios())
    return _mean_error(found, action_values[0])


@check(
    "estimators/cut-ratios", "mean with cut ratios and what makes up for them against the policy's mean", DOUBLE, True
)
def cut_ratios() -> float:
    worth = np.random.default_rng(2).normal(size=(STATES, ACTIONS))
    log_ratios, bound = np.log(OTHER / ACTED), 1.1

    @in_double
    def beyond(log_ratios: Any, probs: Any) -> Any:
        return importance.beyond_bound(log_ratios, probs, bound)

    cut = np.sum(ACTED * np.minimum(bound, OTHER / ACTED) * worth, -1)
    return gap(cut + np.sum(beyond(log_ratios, OTHER) * worth, -1), np.sum(OTHER * worth, -1))


@check(
    "estimators/trajectory-ratios", "mean return with ratios of trajectories against the other policy's J", DOUBLE, True
)
def trajectory_ratios() -> float:
    rows = _rows("terminated")

    @in_double
    def ratios(log_ratios: Any, ended: Any) -> Any:
        whole = importance.weights_of_trajectories(log_ratios, ended)
        so_far = importance.weights_so_far(log_ratios, ended)
        return whole, so_far, importance.weights_to_come(log_ratios, ended)

    whole, so_far, to_come = ratios(_log_ratios(), rows["terminated"])
    falling = GAMMA ** np.arange(LENGTH)[:, None]
    wanted = float(exact(other=True).performance)
    by_row = float(np.mean(np.sum(so_far * falling * rows["rewards"], 0)))
    returns = np.sum(falling * rows["rewards"], 0)
    return max(abs(float(np.mean(x * returns)) - wanted) for x in (whole[0], to_come[0])) + abs(by_row - wanted)


SENTINEL = 1e6
"""A value that would show wherever it came in."""


@check("estimators/terminations", "what a critic's value behind a termination changes", 0.0, quick=True)
def terminations() -> float:
    rows, zeros = _rows("terminated"), np.zeros(everything().shape)
    loud = np.where(rows["terminated"], SENTINEL, 0.0)
    return max(gap(x, y) for x, y in zip(_estimated(zeros, rows), _estimated(loud, rows), strict=True))


def _estimated(successor_values: np.ndarray, rows: Any) -> list[np.ndarray]:
    zeros = np.zeros(everything().shape)
    return [
        _gae(zeros, successor_values, rows, 0.5),
        *_n_steps(successor_values, rows)[1:],
        _to_go(successor_values, rows),
        _v_trace(zeros, successor_values, rows, zeros, np.inf)[1],
        _retrace(zeros, successor_values, rows, zeros),
    ]


@check(
    "estimators/time-limits",
    "what the true successor's value at a time limit adds to its row, against gamma",
    1e-9,
    True,
)
def time_limits() -> float:
    rows, zeros = _rows("truncated"), np.zeros(everything().shape)
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
        rows = {**_rows("batch"), kind: border}
        louder = {**rows, "rewards": rows["rewards"] + np.where(np.arange(LENGTH)[:, None] > 1, SENTINEL, 0.0)}
        pairs = zip(_estimated(zeros, rows), _estimated(zeros, louder), strict=True)
        worst = max(worst, *(gap(x[:2], y[:2]) for x, y in pairs))
    return worst


@check(
    "estimators/discounted-states", "the weights of rows against gamma to the number of steps before them", DOUBLE, True
)
def discounted_states() -> float:
    rows = _rows("terminated")

    @in_double
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

    @in_double
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
    all_of, (values, action_values) = everything(), _endless()
    rows = _rows("truncated")

    @in_double
    def estimated(here: Any, after: Any, taken: Any, rows: Any) -> Any:
        steps = advantages.Steps.on_policy(values=here, successor_values=after, **rows)
        found = advantages.ExpectedSarsa(GAMMA)(steps._replace(action_values=taken))
        return found.advantages, found.targets

    taken = all_of.of(action_values)
    found, targets = estimated(values[all_of.states], values[all_of.successors], taken, rows)
    return max(gap(found, taken - values[all_of.states]), _mean_error(targets, action_values))


@check(
    "estimators/time-baseline",
    "returns less their mean at the same step, rows of weight 0 left out",
    DOUBLE,
    quick=True,
)
def time_baseline() -> float:
    rows, counted = _rows("terminated"), np.ones(everything().shape)
    counted[:, ::3] = 0.0

    @in_double
    def estimated(rows: Any, counted: Any) -> Any:
        zeros = jnp.zeros_like(counted)
        steps = advantages.Steps.on_policy(values=zeros, successor_values=zeros, **rows)._replace(weights=counted)
        part = advantages.TimeBaseline(advantages.RewardToGo(GAMMA))
        return part(steps).advantages, advantages.RewardToGo(GAMMA)(steps).advantages

    found, returns = estimated(rows, counted)
    means = np.sum(counted * returns, 1) / np.sum(counted, 1)
    return gap(found, returns - means[:, None])
