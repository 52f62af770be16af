"""The runs that a page is about: found at the places that were typed, and looked at again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jumar.errors import JumarError, UsageError
from jumar.runs.run_directory import CONFIG, RunDirectory
from jumar.studies.found_runs import STATE, Earlier, find_runs, names_of
from jumar.web.watched import WatchedRun

BETWEEN_SCANS = 5.0
"""Seconds after which a folder is searched for new runs again."""
MOST_RUNS = 1000
"""How many runs a page is about at most."""


class Gathering:
    """Runs at and below some places: run directories, comparisons, and folders that hold some.

    Attributes:
        places: as they were typed.
        runs: what was found, each once, in the order of the places.
        comparisons: those places that are comparisons.
        left_out: what was found and cannot be shown, in words.
        missing: places where there is no run yet.
    """

    def __init__(
        self, places: Sequence[Path], *, waits: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Find the runs, and read their logs.

        Args:
            places: where to look.
            waits: whether a place may be without a run for now.
            clock: what the time between two searches is measured by.

        Raises:
            UsageError: there is no run at a place.
            DamagedFile: a run that was named is damaged.
        """
        self.places, self._waits, self._clock = list(places), waits, clock
        self.runs: list[WatchedRun] = []
        self.comparisons: list[Path] = []
        self.left_out: list[str] = []
        self.missing: list[Path] = []
        self._scanned = clock()
        self._scan(strictly=True)
        self._read()

    def look(self) -> bool:
        """Look for new lines, and from time to time for new runs; return whether anything changed."""
        changed = False
        if self._clock() - self._scanned >= BETWEEN_SCANS:
            self._scanned = self._clock()
            changed = self._scan(strictly=False)
        return self._read() or changed

    def _read(self) -> bool:
        return sum(run.look() for run in self.runs) > 0

    def _scan(self, *, strictly: bool) -> bool:
        before = self._signature()
        self.left_out, self.missing, self.comparisons = [], [], []
        found: dict[Path, Earlier] = {}
        for place in self.places:
            if os.path.isfile(place / STATE):
                self.comparisons.append(place)
            for one in self._find(place, strictly):
                found.setdefault(one.directory.path.resolve(), one)
        every = list(found.values())
        if len(every) > MOST_RUNS:
            self.left_out.append(f"{len(every) - MOST_RUNS:,} runs beyond the first {MOST_RUNS:,}.")
            del every[MOST_RUNS:]
        known = {run.directory.path: run for run in self.runs}
        self.runs = []
        for one, name in zip(every, names_of(every), strict=True):
            try:
                self.runs.append(self._watch(known.get(one.directory.path), one, name))
            except JumarError as error:  # replaced since it was found
                self.left_out.append(str(error))
        return self._signature() != before

    def _find(self, place: Path, strictly: bool) -> list[Earlier]:
        named = os.path.lexists(place / CONFIG)
        try:
            if named:
                RunDirectory.open(place)
            here = list(find_runs(place, self.left_out.append))
        except JumarError as error:
            if strictly:
                raise
            self.left_out.append(str(error))
            return []
        if here:
            return here
        if not self._waits:
            if not os.path.exists(place):
                RunDirectory.open(place)  # says what is near
            why = f" ({self.left_out[0].removesuffix('.')})" if self.left_out else ""
            raise UsageError(
                f"{place} holds no run{why}; give run directories, a comparison, or a folder that holds some."
            )
        self.missing.append(place)
        return []

    @staticmethod
    def _watch(known: WatchedRun | None, one: Earlier, name: str) -> WatchedRun:
        config = one.directory.read_config()
        if known is None:
            return WatchedRun(one.directory, one.plan, config, name, one.task)
        known.set_plan(one.plan, config)
        known.method, known.task = name, one.task
        return known

    def _signature(self) -> object:
        runs = [(run.directory.path, run.method, run.task, run.plan.total_timesteps) for run in self.runs]
        return runs, self.left_out, self.missing, self.comparisons
