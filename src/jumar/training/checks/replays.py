"""Whether an environment does the same again, and whether two of them leave each other alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jumar.envs.host import HostEnvironments
from jumar.errors import EnvironmentFault
from jumar.training.checks.course import draw, mask_of, parts
from jumar.training.checks.findings import Findings

STEPS = 200
"""How many steps are repeated."""
OTHER = 7919
"""Added to a seed, it makes another one."""


class Moment(NamedTuple):
    """What one step gave: the reset is the first moment, with a reward of 0."""

    observation: list[tuple[str, np.ndarray]]
    reward: float
    terminated: bool
    truncated: bool


class Trace(NamedTuple):
    """A reset and the steps after it."""

    moments: list[Moment]
    actions: list[np.ndarray]

    @property
    def digest(self) -> str:
        """The SHA-256 of all that was seen, in hexadecimal."""
        content = hashlib.sha256()
        for moment in self.moments:
            for place, value in moment.observation:
                content.update(place.encode() + str(value.dtype).encode() + np.ascontiguousarray(value).tobytes())
            content.update(np.array([moment.reward, moment.terminated, moment.truncated], np.float64).tobytes())
        return content.hexdigest()


def trace(
    environments: HostEnvironments,
    seeds: list[int],
    steps: int,
    actions: list[np.ndarray] | None = None,
    draws: int = 0,
) -> Trace:
    """Take down what the first environment does, given these actions, or random ones of the seed ``draws``.

    All others are given actions of their own.

    Raises:
        EnvironmentFault: one of them failed.
    """
    random, others = np.random.default_rng(draws), np.random.default_rng(draws + OTHER)
    observation, masks = environments.reset(seeds)
    moments, taken = [Moment(_copy(observation), 0.0, False, False)], []
    for i in range(steps if actions is None else len(actions)):
        space = environments.action_space
        action = draw(space, mask_of(environments, observation, masks), random) if actions is None else actions[i]
        taken.append(action)
        rest = [
            draw(space, mask_of(environments, observation, masks, row), others) for row in range(1, environments.n_envs)
        ]
        step = environments.step(np.stack([action, *rest]))
        moments.append(
            Moment(_copy(step.successors), float(step.rewards[0]), bool(step.terminated[0]), bool(step.truncated[0]))
        )
        observation, masks = step.observations, step.action_masks
    return Trace(moments, taken)


def _copy(observation: Any) -> list[tuple[str, np.ndarray]]:
    return [(place, value.copy()) for place, value in parts(observation)]


def first_difference(one: Trace, other: Trace) -> str | None:
    """Say where two traces differ first, as ``observation[2] at step 17 was 0.1 and is 0.2``; ``None`` if they do not."""
    for step, (here, there) in enumerate(zip(one.moments, other.moments, strict=False)):
        when = f"at step {step}" if step else "after the reset"
        for (place, before), (_, after) in zip(here.observation, there.observation, strict=True):
            if not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
                where = tuple(int(i) for i in np.argwhere(np.atleast_1d(before != after))[0])
                entry = place + (f"[{', '.join(map(str, where))}]" if before.ndim else "")
                pair = (float(np.atleast_1d(x)[where]) for x in (before, after))
                return "observation{} {} was {:.9g} and is {:.9g}".format(entry, when, *pair)
        for name in ("reward", "terminated", "truncated"):
            if (before := getattr(here, name)) != (after := getattr(there, name)):
                return f"{name} {when} was {before} and is {after}"
    return None


Make = Callable[[int], HostEnvironments]
"""Makes so many environments."""


def check_replays(findings: Findings, make: Make, seed: int, steps: int, independent: bool = False) -> str | None:
    """Repeat the same steps in the same environment and in others; return the digest of what was seen.

    Args:
        findings: take down what is found.
        make: makes environments.
        seed: of the environment and of the actions.
        steps: how many are repeated.
        independent: whether copies cannot know of each other, so that this need not be looked at.

    Raises:
        EnvironmentFault: the environment failed already the first time.
    """
    environments = make(1)
    try:
        first = trace(environments, [seed], steps, draws=seed)
        again = _difference(lambda: trace(environments, [seed], steps, first.actions), first)
        other_seed = _attempt(lambda: trace(environments, [seed + OTHER], steps, first.actions))
        other_actions = _attempt(lambda: trace(environments, [seed], steps, draws=seed + OTHER))
    finally:
        environments.close()
    fresh = _difference(lambda: _in_new(make, 1, seed, steps, first.actions), first)
    many = f"{len(first.actions):,} steps"
    if again is None and fresh is None:
        findings.what.append(
            f"The same seed and actions give the same {many} again, in the same environment and in a new one "
            f"(digest {first.digest[:12]})."
        )
    else:
        how = "in a new environment" if again is None else "in the same environment, reset with the same seed"
        findings.suspect(
            f"It cannot be replayed: with the same seed and actions, {again or fresh} {how}. Runs cannot be repeated, and "
            "resumed runs are not exact.",
            "Draw everything random from self.np_random, which super().reset(seed=seed) seeds, and let a reset set all state.",
        )
    if again is None and fresh is None:
        _check_seeds(findings, first, other_seed)
        _check_actions(findings, first, other_actions)
        if not independent:
            _check_independence(findings, make, seed, steps, first)
    return first.digest


def _check_seeds(findings: Findings, first: Trace, other: Trace | None) -> None:
    if other is not None and first_difference(first, other) is None:
        findings.what.append("Nothing is random: another seed gives the same steps.")
    elif other is not None and first_difference(Trace(first.moments[:1], []), Trace(other.moments[:1], [])) is None:
        findings.what.append("Every episode begins with the same observation, whatever the seed.")


def _check_actions(findings: Findings, first: Trace, other: Trace | None) -> None:
    if other is None or len(first.actions) < 2:
        return
    differ = any(not np.array_equal(a, b) for a, b in zip(first.actions, other.actions, strict=False))
    if differ and first_difference(first, other) is None:
        findings.suspect(
            f"Actions change nothing: other actions give the same observations and rewards for {len(first.actions):,} steps."
        )


def _check_independence(findings: Findings, make: Make, seed: int, steps: int, first: Trace) -> None:
    found = _difference(lambda: _in_new(make, 2, seed, steps, first.actions), first)
    if found is not None:
        findings.suspect(
            f"Two environments in one process are not independent: beside another one, {found}.",
            "Keep the state in attributes of the object, not of the class or the module.",
        )


def _in_new(make: Make, n: int, seed: int, steps: int, actions: list[np.ndarray]) -> Trace:
    environments = make(n)
    try:
        return trace(environments, [seed + i * OTHER for i in range(n)], steps, actions)
    finally:
        environments.close()


def _difference(play: Callable[[], Trace], first: Trace) -> str | None:
    """Return how a second trace differs from the first; an environment that fails now differs too."""
    try:
        return first_difference(first, play())
    except EnvironmentFault as fault:
        return f"it fails where it did not ({str(fault).removesuffix('.')})"


def _attempt(play: Callable[[], Trace]) -> Trace | None:
    try:
        return play()
    except EnvironmentFault:  # a random action may not be allowed here
        return None
