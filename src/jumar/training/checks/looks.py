"""What spaces, and what was seen under random actions, say about an environment."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from gymnasium import spaces

from jumar.envs.batches import mask_segments
from jumar.errors import UsageError
from jumar.policies.observations import MASK_KEY, Encoder
from jumar.spaces import describe_space
from jumar.text import counted, short_number
from jumar.training.checks.course import Course
from jumar.training.checks.findings import Findings
from jumar.training.checks.watched import Notes

LARGE_REWARD = 1e3
"""Rewards above it make large losses; those of the usual tasks lie below."""
LARGE_OBSERVATION = 100.0
"""Numbers above it saturate a network that does not normalise them."""
COARSE = 2.0**24
"""From here on, whole numbers are not exact in single precision."""
WIDE, NARROW = 100.0, 0.01
"""Half ranges of actions beyond which a scale is odd."""
MOST_NAMED = 5


def look_at_spaces(findings: Findings, observations: Any, actions: Any) -> None:
    """Say what the spaces are and what becomes of each part."""
    kind = type(observations).__name__
    findings.what.append(f"Observations: {describe_space(observations)} ({kind}{_dtype(observations)}).")
    segments = mask_segments(actions)
    try:
        encoder = Encoder.of(observations, normalise=False, mask_size=sum(segments) if segments else None)
    except UsageError as error:
        findings.prevent(str(error))
        return
    findings.what += [f"The network gets {leaf.describe()}." for leaf in encoder.leaves]
    if encoder.mask_axes:
        findings.what.append(
            f"observation[{MASK_KEY!r}] is taken for the mask of the actions; the network does not get it."
        )
    findings.what.append(f"Actions: {describe_space(actions)} ({type(actions).__name__}{_dtype(actions)}).")
    if isinstance(actions, spaces.Box):
        _look_at_action_box(findings, actions)


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number:,} entries"


def _dtype(space: Any) -> str:
    return f", {space.dtype}" if getattr(space, "dtype", None) is not None else ""


def _look_at_action_box(findings: Findings, space: spaces.Box) -> None:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        findings.suspect(
            "The action space has infinite bounds, so policies that are squashed into bounds cannot act in it.",
            "Bound the actions, to [-1, 1] say, and scale them in the environment.",
        )
        return
    half, middle = high / 2 - low / 2, high / 2 + low / 2
    if np.any(half <= 0):
        findings.suspect(
            f"{_entries(int(np.sum(half <= 0)))} of the action can have one value only.",
            "Leave entries without a choice out of the action space.",
        )
    remedy = "Scale the actions to [-1, 1]: --wrapper RescaleAction:min_action=-1,max_action=1"
    if np.any(half > WIDE) or np.any((half < NARROW) & (half > 0)):
        findings.suspect(
            f"Half of the range of an action is from {half.min():g} to {half.max():g}; policies begin with a standard "
            "deviation of about 1 in the environment's units, which is far from it.",
            remedy,
        )
    elif np.any(np.abs(middle) > 1e-6 * np.maximum(half, 1e-12)):
        findings.suspect(
            "The action's bounds are not symmetric around 0, and a policy's first actions are around 0.", remedy
        )


def look_at_observations(findings: Findings, course: Course, notes: Notes | None) -> None:
    """Say what is odd about the observations that were seen."""
    if notes is not None:
        for place, dtype in notes.dtypes.items():
            findings.suspect(
                f"observation{place} is returned as {dtype}, which is not its space's dtype; it is converted."
            )
        for words in notes.outside.values():
            findings.suspect(f"{words}; bounds are not enforced, but nothing should rely on them.")
    if not course.rewards or not course.ranges:
        return
    steps = f"{len(course.rewards):,} steps"
    if not any(part.moved for part in course.ranges.values()):
        findings.suspect(f"The observation never changed within an episode, in {steps} of random actions.")
        return
    for place, part in course.ranges.items():
        if place == f"[{MASK_KEY!r}]":
            continue
        still = np.flatnonzero(part.constant)
        if len(still) > 0 and part.constant.ndim == 1:
            named = ", ".join(f"[{i}]" for i in still[:MOST_NAMED]) + (", ..." if len(still) > MOST_NAMED else "")
            findings.suspect(f"{_entries(len(still))} of observation{place} had one value only in {steps}: {named}.")
        _look_at_size(findings, place, part.largest, part.low.dtype)


def _look_at_size(findings: Findings, place: str, largest: float, dtype: np.dtype) -> None:
    if dtype.kind != "f":
        return
    if largest >= COARSE:
        findings.suspect(
            f"observation{place} is as large as {short_number(largest)}, and the network computes in single precision, which "
            "does not tell such numbers apart exactly.",
            "Give differences or scaled numbers in the place of large ones.",
        )
    elif largest > LARGE_OBSERVATION:
        findings.right.append(
            f"--normalize-observations: numbers of observation{place} are as large as {short_number(largest)}."
        )


def look_at_rewards(findings: Findings, course: Course) -> None:
    """Say what the rewards are like."""
    rewards = np.asarray(course.rewards)
    if not len(rewards):
        return
    low, high = float(rewards.min()), float(rewards.max())
    findings.what.append(
        f"Rewards: {short_number(low)} to {short_number(high)}, mean {short_number(float(rewards.mean()))} over "
        f"{counted(len(rewards), 'step')} of random actions."
    )
    if low == high == 0.0:
        findings.suspect(
            f"No reward but 0 in {len(rewards):,} steps of random actions: a policy that begins at random has nothing to learn "
            "from.",
            "Reward progress towards the goal, or begin episodes near it.",
        )
    elif max(abs(low), abs(high)) > LARGE_REWARD:
        findings.suspect(
            f"Rewards are as large as {short_number(max(abs(low), abs(high)))}: losses of the critic are too.",
            "Divide the rewards, or train with --normalize-rewards.",
        )
    if course.costs:
        findings.what.append(f"info['cost'] is given: mean {short_number(float(np.mean(course.costs)))} a step.")
    if course.complaint is not None:
        findings.suspect(f"{course.complaint} It counts as no cost.")


def look_at_episodes(findings: Findings, course: Course, limit: int | None, remedy: str, notes: Notes | None) -> None:
    """Say how episodes end, and what that means for evaluations."""
    steps = counted(len(course.rewards), "step")
    if limit is not None:
        findings.what.append(f"Time limit: {counted(limit, 'step')}; evaluations run whole episodes.")
    else:
        findings.what.append(
            "No time limit is stated, so an episode of an evaluation during training is cut where it takes too long."
        )
    if course.lengths:
        lengths, returns = np.asarray(course.lengths), np.asarray(course.returns)
        findings.what.append(
            f"Random actions: {counted(len(lengths), 'episode')} in {steps}, of {short_number(float(lengths.mean()))} steps "
            f"({lengths.min():,} to {lengths.max():,}) and return {short_number(float(returns.mean()))} "
            f"({short_number(float(returns.min()))} to {short_number(float(returns.max()))}); "
            f"{course.terminations:,} terminated, {course.truncations:,} truncated."
        )
        if len(lengths) > 1 and lengths.min() == lengths.max() > 1 and not course.truncations:
            findings.suspect(
                f"Every episode was terminated after exactly {lengths[0]:,} steps. If that is a time limit, learning takes the "
                "future after it to be worth 0.",
                "Report a time limit as truncated, and state it as max_episode_steps where the environment is registered.",
            )
    elif course.rewards and limit is None:
        findings.suspect(f"No episode ended in {steps} of random actions, and no time limit is stated.", remedy)
    elif course.rewards:
        findings.what.append(f"Random actions ended no episode in {steps}.")
    if course.allowed:
        findings.what.append(f"Action masks allow {np.mean(course.allowed):.0%} of the choices.")
    if notes is not None and notes.both_ends:
        findings.suspect(
            f"{counted(notes.both_ends, 'step')} both terminated and truncated an episode; it counts as terminated."
        )


def look_at_info(findings: Findings, numbers: list[str]) -> None:
    """Say which entries of ``info`` can be logged."""
    if numbers:
        shown = ", ".join(json.dumps(key) for key in numbers[:20])
        findings.what.append(f"info has numbers that --log-info KEY logs: {shown}.")
