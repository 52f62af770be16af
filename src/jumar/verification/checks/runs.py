"""Runs that are kept: resumed to the bit, files that notice a flipped bit, evaluation that depends on nothing else."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from jumar.collecting.evaluation import host_evaluator
from jumar.console.reporter import Silent
from jumar.envs.host import SerialEnvironments
from jumar.errors import JumarError
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.policy_files import read_policy_files
from jumar.runs.run_directory import RunDirectory
from jumar.runs.segments import read_segments
from jumar.training.commands import resume, train
from jumar.training.plan import Plan
from jumar.training.request import TrainRequest
from jumar.training.restore import newest_checkpoint, read_policy
from jumar.verification.compare import gap
from jumar.verification.registry import check

TOTAL, BETWEEN = 192, 64
SMALL: dict[str, Any] = {"n_envs": 2, "net_arch": (4,), "normalize_observations": True, "normalize_rewards": True}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("jax/CartPole-v1", {**SMALL, "n_steps": 16, "batch_size": 16, "n_epochs": 2}),
    "sac": (
        "jax/Pendulum-v1",
        {**SMALL, "batch_size": 4, "buffer_size": 100, "learning_starts": 16, "train_freq": 8, "log_every": 32},
    ),
}


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="jumar-verify-")


@functools.cache
def _trained(name: str) -> Path:
    """Return the directory of a run that was never stopped."""
    env, settings = RUNS[name]
    run = Path(_folder().name) / name
    request = TrainRequest(
        algorithm=name,
        env=env,
        total_timesteps=TOTAL,
        run_dir=run,
        eval_every=0,
        checkpoint_every=BETWEEN,
        preset="none",
        settings=settings,
    )
    train(request, Silent())
    return run


@functools.cache
def _resumed(name: str) -> Path:
    """Return a copy of that run which went on from its first checkpoint, as one does that was killed after it."""
    run = Path(_folder().name) / f"{name}-resumed"
    shutil.copytree(_trained(name), run)
    CheckpointStore(run / "checkpoints").discard_after(BETWEEN)
    for left in run.glob("policy.*"):
        left.unlink()
    resume(run, None, None, Silent())
    return run


def _differing_bytes(name: str) -> float:
    whole, again = ((run / "policy.safetensors").read_bytes() for run in (_trained(name), _resumed(name)))
    return float(abs(len(whole) - len(again)) + sum(a != b for a, b in zip(whole, again, strict=False)))


@check("runs/resume", "bytes of policy.safetensors in which a resumed run differs from one never stopped", 0.0)
def resumed() -> float:
    return _differing_bytes("ppo")


@check("runs/resume-replay", "the same of a method with a replay buffer", 0.0)
def resumed_replay() -> float:
    return _differing_bytes("sac")


@check("runs/normaliser", "the normaliser saved with the policy against that of the last checkpoint", 0.0)
def normaliser() -> float:
    run = _trained("ppo")
    saved, _ = read_policy_files(run)
    kept = CheckpointStore(run / "checkpoints").newest().arrays
    mine = {name: x for name, x in saved.items() if name.startswith("observation_moments")}
    theirs = {name: x for name, x in kept.items() if "observation_moments" in name}
    if len(mine) != 3 or float(mine["observation_moments/rows"]) != TOTAL:
        raise ValueError(f"the policy was saved with {sorted(mine)}, and not with the moments of {TOTAL} observations")
    return max(gap(x, next(y for key, y in theirs.items() if key.endswith(name))) for name, x in mine.items())


def _unnoticed(names: list[Path], read: Callable[[], Any]) -> int:
    """Return in how many places a flipped bit of a file is not noticed by who reads it."""
    count = 0
    for path in names:
        whole = path.read_bytes()
        for place in np.linspace(0, len(whole) - 1, 5).astype(int):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            try:
                read()
            except JumarError:
                continue
            finally:
                path.write_bytes(whole)
            count += 1
    read()
    return count


@check("runs/flipped-bit", "flipped bits in policy, settings, checkpoint and replay buffer that no reader notices", 0.0)
def flipped_bit() -> float:
    copy = Path(_folder().name) / "flipped"
    shutil.copytree(_trained("sac"), copy)
    run = RunDirectory.open(copy)
    plan = Plan.from_json(run.read_config(), run.config)
    store = CheckpointStore(run.checkpoints)
    for step in store.steps()[:-1]:  # else the one before would be taken
        shutil.rmtree(store.folder / f"{step:012d}")
    [last] = store.folder.iterdir()
    segments = read_segments(store.newest().record["segments"])
    kept = [last / "state.safetensors", last / "checkpoint.json", *(run.replay / each.name for each in segments)]
    return float(
        _unnoticed([copy / "policy.safetensors", copy / "policy.json"], lambda: read_policy_files(copy))
        + _unnoticed([run.config], run.read_config)
        + _unnoticed(kept, lambda: newest_checkpoint(run, plan))
    )


@check("runs/evaluation", "returns of episodes run one, three and four at a time, and of fewer episodes", 0.0)
def evaluation() -> float:
    policy, parameters, moments, _ = read_policy(_trained("ppo"))

    def make(n: int) -> SerialEnvironments:
        return SerialEnvironments([lambda: gym.make("CartPole-v1")] * n, "CartPole-v1")

    found = [
        host_evaluator(policy, make, abreast=abreast)(parameters, moments, 4, 7, longest=40) for abreast in (4, 3, 1)
    ]
    returns, worst = found[0].returns, max(gap(each.returns, found[0].returns) for each in found)
    fewer = host_evaluator(policy, make)(parameters, moments, 2, 7, longest=40).returns
    return max(worst, gap(fewer, returns[:2]))
