"""Putting the rows of lanes together: side by side, in the order of the lanes, never in that of their arrival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jumar.envs import batches
from jumar.envs.host import HostStep
from jumar.lanes.records import Failed, Rows

NOT_GIVEN: dict[str, bool | float] = {"action_masks": True, "successor_masks": True, "costs": 0.0}
"""What stands for a field in the lanes that have not given it (yet), where others have."""


def first_of(failures: Sequence[Failed]) -> Failed:
    """Return the first failure in time, with what was complained of before it; of a step, that of the first lane."""
    first = min(failures, key=lambda failure: (failure.step, failure.lane))
    complaints = tuple(complaint for failure in failures for complaint in failure.complaints)
    return first._replace(complaints=complaints)


def side_by_side(parts: Sequence[Rows]) -> Rows:
    """Return the rows of some lanes and of those after them as one answer."""
    fields = {name: _field(name, [part.fields for part in parts]) for name in parts[0].fields}
    return Rows(
        fields,
        np.concatenate([part.start for part in parts]),
        jax.tree.map(lambda *x: np.concatenate(x) if np.ndim(x[0]) else x[0], *(part.carry for part in parts)),
        tuple(lane for part in parts for lane in part.lanes),
        tuple(steps_beside(steps) for steps in zip(*(part.steps for part in parts), strict=True)),
        _joined([part.infos for part in parts], axis=2),
        tuple(dict.fromkeys(name for part in parts for name in part.info_numbers)),
        tuple(item for part in parts for item in part.info_complaints),
        tuple(complaint for part in parts for complaint in part.complaints),
    )


def _field(name: str, parts: Sequence[dict[str, Any]]) -> Any:
    """Return a field of a trajectory, ``[T, L, ...]``, of all parts."""
    values = [part[name] for part in parts]
    given = next((value for value in values if value is not None), None)
    if given is None:
        return None
    if name in NOT_GIVEN:
        rest = given.shape[2:]
        values = [
            np.full((*part["rewards"].shape, *rest), NOT_GIVEN[name], given.dtype) if value is None else value
            for value, part in zip(values, parts, strict=True)
        ]
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *values)


def steps_beside(steps: Sequence[HostStep]) -> HostStep:
    """Return what environments returned in one step as a step of all of them."""
    first = steps[0]
    masks, costs = [step.action_masks for step in steps], [step.costs for step in steps]
    return first._replace(
        observations=batches.concatenate([step.observations for step in steps]),
        rewards=np.concatenate([step.rewards for step in steps]),
        terminated=np.concatenate([step.terminated for step in steps]),
        truncated=np.concatenate([step.truncated for step in steps]),
        successors=batches.concatenate([step.successors for step in steps]),
        valid=np.concatenate([step.valid for step in steps]),
        action_masks=_filled(masks, [len(step.rewards) for step in steps], True),
        costs=_filled(costs, [len(step.rewards) for step in steps], 0.0),
        infos=_joined([step.infos for step in steps], axis=1),
        whole_infos=None if first.whole_infos is None else [info for step in steps for info in step.whole_infos or ()],
    )


def _filled(parts: Sequence[np.ndarray | None], lengths: Sequence[int], fill: bool | float) -> np.ndarray | None:
    given = next((part for part in parts if part is not None), None)
    if given is None:
        return None
    return np.concatenate(
        [
            np.full((n, *given.shape[1:]), fill, given.dtype) if part is None else part
            for part, n in zip(parts, lengths, strict=True)
        ]
    )


def _joined(parts: Sequence[np.ndarray | None], axis: int) -> np.ndarray | None:
    return np.concatenate([part for part in parts if part is not None], axis) if parts[0] is not None else None
