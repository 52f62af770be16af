"""What the user asked a training run to be, before anything is resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Wrapper = tuple[str, tuple[tuple[str, Any], ...]]
"""A wrapper's name and its keyword arguments."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The wishes for one training run; ``None`` means that Jumar chooses.

    Attributes:
        algorithm: Command-line name of the algorithm, for example ``"ppo"``.
        env: Environment id as typed, with or without a backend in front; ``None`` only with ``dataset``.
        total_timesteps: Environment steps to train for, over all parallel environments.
        seed: Seed of everything random.
        n_envs: Parallel environments; ``None``: the preset's or the algorithm's own.
        run_dir: Where to save; ``None``: a new folder under ``runs``.
        env_kwargs: Keyword arguments of the environment.
        frame_stack: Last observations shown to the policy at once.
        atari: Whether the environment is an Atari game, to be prepared in the usual way.
        wrappers: Wrappers, Gymnasium's by name or the user's own as ``module:Name``, the innermost first.
        workers: Worker processes that step the environments, 0 for none; ``None``: chosen by measuring a step.
        runners: Processes that step the environments on Ray, each copy acting alone (lanes); 0: lanes in this process;
            ``None``: no lanes.
        address: ``HOST:PORT`` of the Ray cluster where they are; ``None``: this machine.
        cost: What a step costs, as typed; ``None``: what the environment says.
        eval_every: Steps between evaluations, 0 for none; ``None``: a tenth of the run.
        eval_episodes: Episodes of each evaluation.
        checkpoint_every: Steps between checkpoints, 0 for one at the end only.
        preset: Name of the preset, ``"none"``, or ``None`` for the one of this algorithm and environment.
        n_seeds: Train this many seeds in one program (compiled environments only).
        encoder: The user's network that encodes observations, as ``module:Name``.
        init_from: A run, or a folder with a policy, that the run begins with: a warm start.
        dataset: A data set to learn from alone; the environment only evaluates.
        prefill: A data set that is in the replay buffer before any step.
        save_dataset: A file to write all steps that the run collects to, as a data set.
        stop_at_return: Stop when an evaluation's mean return is at least this.
        stop_without_gain: Stop after so many evaluations in a row without a new best mean return.
        log_info: Entries of ``info`` whose means are logged.
        settings: Hyperparameters that were given, by name, as values or as typed.
    """

    algorithm: str
    env: str | None
    total_timesteps: int
    seed: int = 0
    n_envs: int | None = None
    run_dir: Path | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    frame_stack: int | None = None
    atari: bool = False
    wrappers: tuple[Wrapper, ...] = ()
    workers: int | None = None
    runners: int | None = None
    address: str | None = None
    cost: str | None = None
    eval_every: int | None = None
    eval_episodes: int = 10
    checkpoint_every: int | None = None
    preset: str | None = None
    n_seeds: int | None = None
    encoder: str | None = None
    init_from: Path | None = None
    dataset: Path | None = None
    prefill: Path | None = None
    save_dataset: Path | None = None
    stop_at_return: float | None = None
    stop_without_gain: int | None = None
    log_info: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
