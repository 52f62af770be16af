"""Evaluation: whole episodes of a policy in fresh environments.

Episode ``i`` is seeded ``seed + i``, and its actions are computed on their own, whatever runs beside it. So its return
depends on the policy and on its seed alone, never on how many episodes run side by side.

Where an environment states no time limit, a policy may go on for ever (it walks against a wall, say). So an episode is cut
after :data:`LONGEST` steps, and during training after :func:`longest_in_training`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.collecting.gatherers import narrow
from jumar.collecting.stopping import Abandoned, never
from jumar.envs.compiled import CompiledEnvironment, Costed, jit_for, reset_batch, step_batch, traced_info
from jumar.envs.host import HostEnvironments
from jumar.errors import EnvironmentFault, JumarError
from jumar.policies.moments import RunningMoments
from jumar.policies.policy import Policy
from jumar.policies.unsound import Unsound, own_encoder_words, unsound
from jumar.text import counted

LONGEST = 27_000
"""An episode that does not end is cut here, in steps: the limit that the Arcade Learning Environment's papers use."""
SHORTEST = 100
"""No episode is cut before so many steps."""
SHARE = 0.5
"""An evaluation during training takes at most this share of the steps between two evaluations, ..."""
MARGIN = 2
"""... or so many times the steps of as many training episodes, where these are known to end."""


LANES = 16
"""How many episodes run side by side on the host: always the same, so that one program serves them all."""


class Episodes(NamedTuple):
    """What an evaluation saw, an entry per episode."""

    returns: np.ndarray
    """Undiscounted sums of raw rewards, float64."""
    lengths: np.ndarray
    """Steps, int64."""
    cut: np.ndarray
    """Whether the episode had not ended after the most steps allowed, and was cut there, bool."""
    costs: np.ndarray | None = None
    """Undiscounted sums of costs, float64, where the environment gives one cost a step."""

    def complaint(self, remedy: str) -> str | None:
        """Return what is to be said of episodes that were cut, with a remedy; ``None`` where all ended."""
        if not self.cut.any():
            return None
        return (
            f"{int(self.cut.sum())} of {counted(len(self.cut), 'episode')} of the evaluation had not ended after "
            f"{int(self.lengths[self.cut].max()):,} steps and were cut, so their returns are not those of whole episodes. "
            f"{remedy}"
        )

    def summary(self) -> dict[str, Any]:
        """Return the numbers that ``jumar evaluate --json`` prints."""
        costs = {}
        if self.costs is not None:
            costs = {"mean_cost": float(self.costs.mean()), "costs": [float(x) for x in self.costs]}
        return {
            "mean_return": float(self.returns.mean()),
            "std_return": float(self.returns.std()),
            "min_return": float(self.returns.min()),
            "max_return": float(self.returns.max()),
            "mean_length": float(self.lengths.mean()),
            "episodes": len(self.returns),
            "cut_episodes": int(self.cut.sum()),
            "returns": [float(x) for x in self.returns],
            **costs,
        }


def longest_in_training(episodes: int, between: int, recent: np.ndarray, stated: int | None) -> int:
    r"""Return after how many steps an episode of an evaluation during training is cut.

    Where the environment states a time limit, only :data:`LONGEST` counts. Else, with E episodes, B steps of training
    between two evaluations, and the mean length :math:`\bar l` of the E longest of the recent training episodes (if as
    many have ended),

    .. math:: \max(\text{SHARE} \cdot B / E, \; \text{MARGIN} \cdot \bar l, \; \text{SHORTEST}),

    and at most :data:`LONGEST`. It depends on steps alone, so evaluations can be repeated.

    Args:
        episodes: how many episodes the evaluation has.
        between: steps of training between two evaluations.
        recent: lengths of the training episodes that ended last, NaN for none.
        stated: the environment's time limit in steps, if it states one.
    """
    if stated is not None:
        return LONGEST
    ended = np.sort(recent[~np.isnan(recent)])
    enough = min(episodes, len(recent))
    usual = ended[-enough:].mean() if len(ended) >= enough else 0.0
    return min(LONGEST, max(SHORTEST, int(SHARE * between / episodes), int(MARGIN * usual)))


class Seen(NamedTuple):
    """A moment of an episode, for whoever watches it."""

    episode: int
    """The episode's number, from 0."""
    step: int
    """Steps taken so far: 0 after the reset."""
    total: float
    """The sum of the rewards so far."""
    observation: Any
    """What the last step led to, also where the episode ended with it: NumPy arrays in the structure of the space."""
    ended: bool
    """Whether this is the episode's last moment."""


Spectator = Callable[[Seen], None]
"""Is called after the reset and after every step of each episode."""


class Evaluator(Protocol):
    """A way to run episodes; made once, so that it is compiled once."""

    def __call__(
        self,
        parameters: Any,
        moments: RunningMoments,
        episodes: int,
        seed: int,
        stop: Callable[[], Any] = never,
        longest: int | None = None,
        spectator: Spectator | None = None,
    ) -> Episodes:
        """Run episodes of a policy; ``stop`` is asked now and then.

        An episode is cut after ``longest`` steps, by default after :data:`LONGEST`. With a ``spectator`` the episodes, which
        are the same, run one after the other, and ``stop`` is asked before every step.

        Raises:
            Abandoned: ``stop`` said so.
            EnvironmentFault: an environment failed, or returned an observation that is not finite or not in its space, or a
                mask that allows nothing.
            JumarError: the policy computed something that is not finite.
        """
        ...


Act = Callable[..., tuple[Array, Any, Array]]
"""(parameters, moments, observation, carry, episode_start, mask, key, t) -> (valid action, carry, what is wrong with it).

The last is a number of :class:`jumar.policies.unsound.Unsound`.
"""


def single_actor(policy: Policy, deterministic: bool) -> Act:
    """Return the function that acts for one environment; all its arrays are a batch of one."""

    def act(
        parameters: Any,
        moments: RunningMoments,
        observation: Any,
        carry: Any,
        start: Array,
        mask: Any,
        key: Array,
        t: Array,
    ) -> tuple[Array, Any, Array]:
        noise = None if deterministic else policy.noise(jax.random.fold_in(key, t), 1)
        decision = policy.decide(parameters, moments, observation, carry, start, mask, noise)
        wrong = unsound(policy, observation, decision)
        return policy.actions.to_environment(decision.actions, jnp), decision.carry, wrong

    return act


def lane_actor(policy: Policy, deterministic: bool) -> Act:
    """Return the compiled function that acts for :data:`LANES` environments, each on its own.

    The lanes are mapped one after the other over the function for a single observation. A batched product could round
    differently with the number of rows; this cannot.
    """
    act = single_actor(policy, deterministic)

    def act_all(
        parameters: Any,
        moments: RunningMoments,
        observations: Any,
        carry: Any,
        start: Array,
        masks: Any,
        keys: Array,
        t: Array,
    ) -> tuple[Array, Any, Array]:
        def one(lane: tuple[Any, ...]) -> tuple[Array, Any, Array]:
            observation, start, mask = jax.tree.map(lambda x: x[None], lane[:3])
            action, carry, wrong = act(parameters, moments, observation, lane[3], start, mask, lane[4], t)
            return action[0], carry, wrong[0]

        return jax.lax.map(one, (observations, start, masks, carry, keys))

    return jax.jit(act_all)


class _Going(NamedTuple):
    """An episode under way in a compiled environment: a batch of one."""

    states: Any
    observations: Any
    carry: Any
    totals: tuple[Array, Array]
    """Of rewards and costs."""
    t: Array
    done: Array
    wrong: Array
    """What is wrong with the last decision, by :class:`Unsound`; the episode stops there."""


_Keys = tuple[Array, Array]
"""An episode's keys for the environment and for the policy."""

_Result = tuple[Any, Any, Any, Any, Any]
"""An episode's return, cost and length, whether it ended by itself, and what was wrong with its last decision."""


def _only(observations: Any) -> Any:
    """Return the only observation of a batch of one, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[0], observations)


def compiled_evaluator(policy: Policy, env: CompiledEnvironment, name: str, deterministic: bool = True) -> Evaluator:
    """Return an evaluator for a compiled environment: each episode is one call of one compiled loop."""
    act = single_actor(policy, deterministic)
    costs, zero = traced_info(env, name).get("cost") == (), jnp.zeros((), jnp.float32)

    def counted(cost: Array) -> Array:
        # The environment's own may be something else than a number; what is made for `--cost` is one.
        return cost if isinstance(env, Costed) else jnp.where(jnp.isfinite(cost), cost, 0.0)

    def begin(key: Array) -> tuple[_Keys, _Going]:
        reset_key, env_key, act_key = jax.random.split(key, 3)
        states, observations = reset_batch(env, env.params, reset_key, 1)
        carry, time, done = policy.initial_carry(1), jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        sound = jnp.full((), Unsound.NOTHING, jnp.int8)
        return (env_key, act_key), _Going(states, observations, carry, (zero, zero), time, done, sound)

    def step(parameters: Any, moments: RunningMoments, keys: _Keys, going: _Going) -> tuple[_Going, Any]:
        """Return the episode a step later, and what the step led to."""
        (env_key, act_key), t, (total, cost) = keys, going.t, going.totals
        seen, start = going.observations, (t == 0)[None]
        action, carry, wrong = act(parameters, moments, seen, going.carry, start, None, act_key, t)
        states, taken = step_batch(env, env.params, jax.random.fold_in(env_key, t), going.states, action)
        done = (taken.terminated | taken.truncated)[0]
        paid = cost + counted(taken.costs[0]) if costs and taken.costs is not None else zero
        totals = total + taken.rewards[0], paid
        return _Going(states, taken.observations, carry, totals, t + 1, done, wrong[0]), taken.successors

    def episode(parameters: Any, moments: RunningMoments, key: Array, longest: Array) -> _Result:
        keys, start = begin(key)
        going = jax.lax.while_loop(
            lambda going: ~going.done & (going.t < longest) & (going.wrong == Unsound.NOTHING),
            lambda going: step(parameters, moments, keys, going)[0],
            start,
        )
        return *going.totals, going.t, going.done, going.wrong

    compiled = jit_for(env)
    # What nobody calls is not compiled.
    run_one, first, one_more = compiled(episode), compiled(begin), compiled(step)

    def watched(
        parameters: Any,
        moments: RunningMoments,
        key: Array,
        most: int,
        stop: Callable[[], Any],
        i: int,
        tell: Spectator,
    ) -> _Result:
        keys, going = first(key)
        tell(Seen(i, 0, 0.0, _only(going.observations), False))
        for t in range(1, most + 1):
            if stop():
                raise Abandoned
            going, successors = one_more(parameters, moments, keys, going)
            if going.wrong != Unsound.NOTHING:
                break
            ended = bool(going.done) or t == most
            tell(Seen(i, t, float(going.totals[0]), _only(successors), ended))
            if ended:
                break
        return *going.totals, going.t, going.done, going.wrong

    def run(
        parameters: Any,
        moments: RunningMoments,
        episodes: int,
        seed: int,
        stop: Callable[[], Any] = never,
        longest: int | None = None,
        spectator: Spectator | None = None,
    ) -> Episodes:
        most = longest or LONGEST
        results = []
        for i in range(episodes):
            if stop():
                raise Abandoned
            key = jax.random.PRNGKey(seed + i)
            if spectator is None:
                result = run_one(parameters, moments, key, np.int32(most))
            else:
                result = watched(parameters, moments, key, most, stop, i, spectator)
            *result, wrong = jax.device_get(result)
            if wrong != Unsound.NOTHING:
                raise _fault(int(wrong), policy, name, i, int(result[2]))
            results.append(result)
        returns, paid, lengths, ended = (np.array(x) for x in zip(*results, strict=True))
        _check_totals(returns, "return", name)
        _check_totals(paid, "cost", name)
        return Episodes(
            returns.astype(np.float64),
            lengths.astype(np.int64),
            ~ended,
            paid.astype(np.float64) if costs else None,
        )

    return run


def host_evaluator(
    policy: Policy, make: Callable[[int], HostEnvironments], deterministic: bool = True, abreast: int = LANES
) -> Evaluator:
    """Return an evaluator for environments stepped from Python.

    Args:
        policy: the policy.
        make: makes so many environments.
        deterministic: take the most likely action, else draw one.
        abreast: how many episodes run side by side, at most ``LANES``; results do not depend on it.
    """
    act = lane_actor(policy, deterministic)

    def run(
        parameters: Any,
        moments: RunningMoments,
        episodes: int,
        seed: int,
        stop: Callable[[], Any] = never,
        longest: int | None = None,
        spectator: Spectator | None = None,
    ) -> Episodes:
        side_by_side = abreast if spectator is None else 1
        groups = [range(first, min(first + side_by_side, episodes)) for first in range(0, episodes, side_by_side)]
        results = []
        for group in groups:
            environments = make(len(group))
            try:
                seeds = [seed + i for i in group]
                now = partial(act, parameters, moments)
                tell = None if spectator is None else partial(_tell, spectator, group[0])
                results.append(_run_group(now, policy, environments, group, seeds, stop, longest or LONGEST, tell))
            finally:
                environments.close()
        returns, costs, lengths, cut = (np.concatenate(parts) for parts in zip(*results, strict=True))
        return Episodes(returns, lengths, cut, None if np.isnan(costs).all() else np.nan_to_num(costs))

    return run


def _tell(spectator: Spectator, episode: int, step: int, total: float, observations: Any, ended: bool) -> None:
    """Show a spectator a moment of the only episode of its group."""
    spectator(Seen(episode, step, total, _only(observations), ended))


def _run_group(
    act: Act,
    policy: Policy,
    environments: HostEnvironments,
    episodes: range,
    seeds: list[int],
    stop: Callable[[], Any],
    longest: int,
    tell: Callable[[int, float, Any, bool], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Run one episode in each environment, side by side; return returns, costs, lengths and which were cut.

    The costs are NaN where no environment gave any. ``tell`` hears of every moment where there is one environment.
    """
    n = len(seeds)
    observations, masks = environments.reset(seeds)
    keys = np.stack([jax.random.PRNGKey(seed) for seed in [*seeds, *[0] * (LANES - n)]])
    carry = jax.tree.map(lambda x: jnp.stack([x] * LANES), policy.initial_carry(1))
    totals, lengths, running = np.zeros(n), np.zeros(n, np.int64), np.ones(n, bool)
    costs = np.full(n, np.nan)
    if tell is not None:
        tell(0, 0.0, observations, False)
    for t in range(longest):
        if stop():
            raise Abandoned
        seen = fill_lanes((narrow(observations), masks))
        actions, carry, wrong = act(seen[0], carry, np.full(LANES, t == 0), seen[1], keys, np.uint32(t))
        _check_decisions(np.where(running, np.asarray(wrong)[:n], 0), policy, environments.name, episodes, t + 1)
        step = environments.step(np.asarray(actions)[:n])
        totals += np.where(running, step.rewards, 0.0)
        if step.costs is not None:
            costs = np.nan_to_num(costs) + np.where(running, step.costs, 0.0)
        lengths += running
        running &= ~(step.terminated | step.truncated)
        if tell is not None:
            tell(t + 1, float(totals[0]), step.successors, not running.any() or t + 1 == longest)
        if not running.any():
            break
        observations, masks = step.observations, step.action_masks
    return totals, costs, lengths, running


def fill_lanes(tree: Any) -> Any:
    """Return arrays ``[n, ...]`` filled up to ``[LANES, ...]`` with copies of the first row."""
    return jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[:1], LANES - len(x), axis=0)]), tree)


def _check_decisions(wrong: np.ndarray, policy: Policy, name: str, episodes: range, step: int) -> None:
    """Refuse decisions, one of each episode, with one of which something is wrong."""
    if wrong.any():
        i = int(np.argmax(wrong != Unsound.NOTHING))
        raise _fault(int(wrong[i]), policy, name, episodes[i], step)


def _fault(wrong: int, policy: Policy, name: str, episode: int, step: int) -> JumarError:
    """Return the error for a decision with which something is wrong."""
    where = f"episode {episode} of the evaluation in {name}"
    if wrong == Unsound.OBSERVATION:
        return EnvironmentFault(f"{where} had an observation that is not finite or not in its space at step {step}.")
    if wrong == Unsound.MASK:
        return EnvironmentFault(f"{where} allowed no action at step {step}.")
    return JumarError(
        f"at step {step} of {where} the policy computed something that is NaN or infinite{own_encoder_words(policy)}."
    )


def _check_totals(totals: np.ndarray, what: str, name: str) -> None:
    if not np.isfinite(totals).all():
        i = int(np.argmin(np.isfinite(totals)))
        raise EnvironmentFault(f"episode {i} of the evaluation in {name} had a {what} that is {totals[i]}.")
