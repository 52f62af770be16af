"""Learning from what is remembered alone, without an environment."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.off_policy.update import OffPolicy
from jumar.collecting.faults import Faults
from jumar.collecting.programs import ProgramRunner
from jumar.collecting.runner import REPORT, Collector
from jumar.solvers.problem import Diagnostics


class StoredRunner(ProgramRunner):
    """Updates from the memory: a round is an update, and counts as a step; many of them are one compiled program.

    Args:
        update: the algorithm.
        n_seeds: as for :class:`jumar.collecting.programs.ProgramRunner`.
    """

    _update: OffPolicy

    def __init__(self, update: OffPolicy, n_seeds: int | None) -> None:
        super().__init__(update, "the data set", 1, n_seeds)

    def _init(self, key: Array) -> Collector:
        return Collector((), (), jnp.ones((1,), bool), ())

    def _round(
        self, state: tuple[Any, Any, Collector], memory: Any, key: Array, remaining: Array
    ) -> tuple[Any, Any, Collector]:
        learner, made, collector = state
        learner, made = self._update.study(learner, made, memory, remaining, key)
        return learner, made, collector

    def _report_of(
        self, learner: Any, made: Any, keys: Array, before: Any
    ) -> tuple[Any, Diagnostics, tuple[Array | None, ...], Faults]:
        learner, record = self._update.report(learner, made, jax.random.fold_in(keys[-1], REPORT))
        rounds = (self._update.replay.block, 1)
        nothing, never = jnp.zeros(rounds, jnp.float32), jnp.zeros(rounds, bool)
        outcome = nothing, never, never, ~never, None
        return learner, record, outcome, Faults(nothing, nothing, nothing, nothing)
