"""Gathering rollouts from lanes, wherever they are stepped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jumar import errors
from jumar.collecting.gatherers import Gathered
from jumar.collecting.info_means import InfoMeans
from jumar.envs.host import HostEnvironments, HostStep
from jumar.envs.workers import WorkerTraceback
from jumar.errors import EnvironmentFault
from jumar.lanes.crew import Crew
from jumar.lanes.records import Barrier, Complaint, Failed, LaneRecord, Opened, Request, Rows
from jumar.lanes.sides import first_of, side_by_side
from jumar.policies.exploration import Acting


class LaneGatherer:
    """Lets a behaviour act in lanes; a :class:`~jumar.collecting.gatherers.Gatherer`.

    Args:
        make_crew: makes those who step the lanes: now, and after :meth:`close`, when they are needed again.
        make_environments: makes an environment beside the lanes that is never stepped: its name, and how it rewards goals.
        n_envs: how many lanes there are.
        complain: hears of costs that are no numbers.
        info: adds up logged entries of ``info``.

    Attributes:
        steps: what environments returned in the last rollout, where that is kept.
    """

    def __init__(
        self,
        make_crew: Callable[[], Crew],
        make_environments: Callable[[], HostEnvironments],
        n_envs: int,
        complain: Callable[[str], None] = lambda words: None,
        info: InfoMeans | None = None,
    ) -> None:
        self._make_crew, self._make_environments, self.n_envs = make_crew, make_environments, n_envs
        self._complain, self._info = complain, info or InfoMeans()
        self._crew: Crew | None = make_crew()
        self.environments = make_environments()
        self._barrier = Barrier(-1, 0, 0)
        self._number = 0
        self._records: tuple[LaneRecord, ...] = ()
        self.steps: Sequence[HostStep] = ()

    def restart(self, seed: int, step: int) -> None:
        """Begin anew in all lanes, from seeds derived from (seed, step)."""
        if self._crew is None:
            self._crew, self.environments = self._make_crew(), self._make_environments()
        self._number += 1  # what is still under way of before the barrier is not taken for what comes after it
        self._barrier = Barrier(self._barrier.number + 1, seed, step)
        self._records = tuple(LaneRecord(lane, self._number) for lane in range(self.n_envs))

    def gather(self, acting: Acting, carry: Any, start: Any, key: Any) -> Gathered:
        """Ask for a rollout, and put it together.

        Raises:
            EnvironmentFault: an environment failed; of several, the first in time.
        """
        assert self._crew is not None, "restart comes before gather"
        carry, key = jax.device_get((carry, key))
        request = Request(self._number, self._barrier, self._records, carry, np.asarray(start), np.asarray(key))
        parts = self._crew.answer(acting, request)
        failures = [part for part in parts if isinstance(part, Failed)]
        self._hear([complaint for part in parts for complaint in part.complaints], failures)
        rows = side_by_side([part for part in parts if isinstance(part, Rows)])
        self._number += 1
        moves = self._crew.moves_lanes
        self._records = tuple(
            after(record, opened, self._number, moves) for record, opened in zip(self._records, rows.lanes, strict=True)
        )
        self._take_infos(rows)
        self.steps = rows.steps
        return rows.fields, rows.start, rows.carry

    def close(self) -> None:
        """Release the environments, and whoever steps them."""
        if self._crew is not None:
            self._crew.close()
            self.environments.close()
            self._crew = None

    def _hear(self, complaints: Sequence[Complaint], failures: Sequence[Failed]) -> None:
        """Pass on what was wrong, in the order in which it would have come one after the other."""
        failure = first_of(failures) if failures else None
        for complaint in sorted(complaints):
            if failure is None or complaint[:2] < (failure.step, failure.lane):
                self._complain(complaint.words)
        if failure is not None:
            kind = getattr(errors, failure.kind, EnvironmentFault)
            raise kind(failure.words) from (WorkerTraceback(failure.traceback) if failure.traceback else None)

    def _take_infos(self, rows: Rows) -> None:
        if rows.infos is None:
            return
        seen = rows.fields
        for t, infos in enumerate(rows.infos):
            self._info.add_step(
                HostStep(
                    None,
                    seen["rewards"][t],
                    seen["terminated"][t],
                    seen["truncated"][t],
                    None,
                    seen["valid"][t],
                    None,
                    None,
                    infos=infos,
                    info_complaints=dict(rows.info_complaints) if t == 0 else None,
                    info_numbers=rows.info_numbers if t == 0 else (),
                )
            )


def after(record: LaneRecord, opened: Opened, number: int, with_actions: bool = True) -> LaneRecord:
    """Return where a lane is after a request, given where it was before."""
    actions = None
    if with_actions:
        before = (record.actions or ()) if opened.goes_on else ()
        if len(before) > MOST_PARTS:
            before = (np.concatenate(before),)
        actions = (*before, opened.actions)
    return LaneRecord(opened.lane, number, opened.episode, opened.steps, actions, opened.digest, opened.gave)


MOST_PARTS = 64
"""Into so many arrays the actions of an open episode are divided at most."""
