"""What the user asked a comparison to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jumar.report.comparison import Scale
from jumar.studies.methods import Method
from jumar.studies.where import Where
from jumar.training.request import Wrapper

EVALUATIONS = 50
"""How many evaluations a run has; a long one more."""
LONGEST_BETWEEN = 20_000
"""Environment steps that evaluations are apart at most."""
COUNTED = 10
"""How many of the last evaluations make a score."""


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """The wishes for one comparison; ``None`` means that Jumar chooses.

    Attributes:
        methods: What is compared; there may be none where earlier runs are.
        envs: Environment ids as typed.
        total_timesteps: Environment steps of each run.
        seed: The first seed.
        n_seeds: How many seeds, that one and those after it.
        eval_every: Steps between evaluations; ``None``: 20,000, or a fiftieth of shorter runs.
        eval_episodes: Episodes of each evaluation.
        n_envs: Parallel environments of each run; ``None``: each method's own.
        preset: Name of a preset, ``"none"``, or ``None`` for the one of each algorithm and environment.
        cost: What a step costs, as typed; ``None``: what the environment says.
        env_kwargs: Keyword arguments of every environment.
        frame_stack: Last observations shown to the policies at once.
        atari: Whether the environments are Atari games, to be prepared in the usual way.
        wrappers: Wrappers around every environment, Gymnasium's by name or the user's own as ``module:Name``, the innermost
            first.
        encoder: The user's network that encodes observations, as ``module:Name``, of methods that do not name one themselves.
        out: Where everything is kept; ``None``: a new folder under ``runs``.
        processes: How many runs go on at once; ``None``: one for each processor, or as many as there are in a queue of SLURM.
        where: Where the runs are trained.
        earlier: Run directories, or folders of them, that are compared too.
        last: How many evaluations make a run's score.
        scales: By environment, the returns that normalised scores of 0 and 1 stand for.
    """

    methods: tuple[Method, ...] = ()
    envs: tuple[str, ...] = ()
    total_timesteps: int = 1_000_000
    seed: int = 0
    n_seeds: int = 5
    eval_every: int | None = None
    eval_episodes: int = 10
    n_envs: int | None = None
    preset: str | None = None
    cost: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    frame_stack: int | None = None
    atari: bool = False
    wrappers: tuple[Wrapper, ...] = ()
    encoder: str | None = None
    out: Path | None = None
    processes: int | None = None
    where: Where = Where()
    earlier: tuple[Path, ...] = ()
    last: int = COUNTED
    scales: Mapping[str, Scale] = field(default_factory=dict)

    @property
    def seeds(self) -> range:
        """All seeds."""
        return range(self.seed, self.seed + self.n_seeds)

    @property
    def steps_between(self) -> int:
        """Steps between evaluations."""
        if self.eval_every is not None:
            return self.eval_every
        return max(1, min(LONGEST_BETWEEN, self.total_timesteps // EVALUATIONS))
