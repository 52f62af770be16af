"""The files that are changed: small ones of every kind that Jumar reads, sound ones."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

RUN, REPLAY, STUDY, SWEEP, MINARI = "run", "replay", "study", "sweep", "minari"
"""Folders of the corpus: a run, one with a replay buffer, a comparison, a sweep, a data set of Minari's."""
DATASET, CONFIG, PRESET, SPACE = "data.safetensors", "config.toml", "preset.toml", "space.toml"

CONFIG_TEXT = """\
algorithm = "ppo"
env = "jax/CartPole-v1"
total_timesteps = 100_000
seed = 3
n_envs = 8
eval_every = 5_000
eval_episodes = 5
checkpoint_every = 20_000
learning_rate = "linear:3e-4"
clip_range = 0.2
n_steps = 64
batch_size = 64
net_arch = [16, 16]
activation = "tanh"
normalize_observations = true
target_kl = "none"
stop_at_return = 475.0
log_info = ["cost"]
"""
PRESET_TEXT = """\
algorithm = "ppo"
n_envs = 4
learning_rate = 3e-4
net_arch = [8]
gamma = 0.98
"""
SPACE_TEXT = """\
algorithm = "ppo"
env = "jax/CartPole-v1"
total_timesteps = 1024
seeds = 2
trials = 6
startup_trials = 4
sampler = "tpe"
pruner = "median"
objective = "iqm"
preset = "none"
eval_episodes = 2

[settings]
n_envs = 2
net_arch = [8]

[search]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
n_steps = { choices = [32, 64] }
gae_lambda = { low = 0.8, high = 1.0, step = 0.05 }
"""


def make_corpus(folder: Path, *, replay: bool = True) -> None:
    """Write the files to a folder, which is made.

    Args:
        folder: where to.
        replay: whether there is a run with a replay buffer, which takes some seconds to compile.
    """
    import jumar

    folder.mkdir(parents=True, exist_ok=True)
    agent = jumar.PPO("jax/CartPole-v1", n_envs=2, n_steps=8, batch_size=8, net_arch=(4,), normalize_observations=True)
    agent.save(folder / RUN)
    _write_logs(folder / RUN)
    _write_study(folder / STUDY, folder / RUN)
    _write_sweep(folder / SWEEP)
    _write_dataset(folder / DATASET)
    for name, text in ((CONFIG, CONFIG_TEXT), (PRESET, PRESET_TEXT), (SPACE, SPACE_TEXT)):
        (folder / name).write_text(text)
    if importlib.util.find_spec("h5py") is not None:
        _write_minari(folder / MINARI)
    if replay:
        options: dict[str, Any] = {
            "n_envs": 2,
            "batch_size": 4,
            "net_arch": (4,),
            "buffer_size": 40,
            "learning_starts": 20,
        }
        sac = jumar.SAC("jax/Pendulum-v1", **options)
        sac.learn(60)
        sac.save(folder / REPLAY)
        _write_logs(folder / REPLAY)


def _write_logs(run: Path) -> None:
    metrics = [
        {
            "time/total_timesteps": step,
            "time/steps_per_second": 1000.5,
            "time/elapsed": step / 1000,
            "rollout/ep_rew_mean": step / 100 if step > 100 else None,
            "rollout/ep_len_mean": 20.0,
            "rollout/episodes": 3,
            "train/mean_kl": 0.01,
            "train/explained_variance": 0.5,
            "train/learning_rate": 3e-4,
        }
        for step in range(64, 64 * 9, 64)
    ]
    evaluations = [
        {"step": step, "time/total_timesteps": step, "mean_return": 20.5, "std_return": 0.5, "returns": [20.0, 21.0]}
        | {"lengths": [20, 21], "cut_episodes": 0}
        for step in (256, 512)
    ]
    for name, rows in (("metrics.jsonl", metrics), ("evaluations.jsonl", evaluations)):
        (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_study(study: Path, run: Path) -> None:
    from jumar.runs.files import write_json
    from jumar.studies.found_runs import STATE, STATE_KIND

    shutil.copytree(run, study / "runs" / "ppo" / "jax_CartPole-v1" / "seed_0")
    write_json(study / STATE, STATE_KIND, {"methods": ["ppo", "trpo:n_steps=64"], "last": 3})
    about = {"last": 3, "scales": {"jax/CartPole-v1": [20.0, 500.0]}}
    (study / "results.json").write_text(json.dumps({"about": about, "runs": [], "scores": []}))


def _write_sweep(sweep: Path) -> None:
    from jumar.studies.trials import COMPLETE, FAILED, PRUNED, Record, Trial

    sweep.mkdir()
    trials = [
        Trial(0, {"learning_rate": 0.01, "n_steps": 32, "gae_lambda": 0.9}, COMPLETE, (20.0, 30.0)),
        Trial(1, {"learning_rate": 0.02, "n_steps": 64, "gae_lambda": 0.95}, PRUNED, (10.0,)),
        Trial(2, {"learning_rate": 0.09, "n_steps": 64, "gae_lambda": 0.8}, FAILED, (), "the gradient is not finite."),
        Trial(3, {"learning_rate": 0.01, "n_steps": 32, "gae_lambda": 0.9}, COMPLETE, (20.0, 30.0), None, 0),
    ]
    searched = {"learning_rate": {"low": 1e-4, "high": 0.1, "log": True}, "n_steps": {"values": [32, 64]}}
    Record({"algorithm": "ppo", "seeds": 2, "search": searched}, 0, 2, {"optuna": "5.0.0"}, trials).write(sweep)


def _write_dataset(path: Path) -> None:
    from jumar.runs.datasets import Dataset, write_dataset

    chance, n = np.random.default_rng(0), 12
    seen = spaces.Dict({"place": spaces.Box(-np.inf, np.inf, (3,), np.float32), "kind": spaces.Discrete(4)})

    def observations() -> Mapping[str, np.ndarray]:
        return {"place": chance.normal(size=(n, 3)).astype(np.float32), "kind": chance.integers(0, 4, n)}

    ends = np.arange(n) % 5 == 4
    data = Dataset(
        observations(),
        chance.uniform(-1, 1, (n, 2)).astype(np.float32),
        chance.normal(size=n).astype(np.float32),
        observations(),
        ends,
        np.zeros(n, bool),
        (seen, spaces.Box(-1.0, 1.0, (2,), np.float32)),
    )
    write_dataset(path, data)


def _write_minari(folder: Path) -> None:
    import h5py

    data = folder / "data"
    data.mkdir(parents=True)
    box = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1.0, -1.0], "high": [1.0, 1.0]}
    said = {name: json.dumps(box) for name in ("observation_space", "action_space")}
    (data / "metadata.json").write_text(json.dumps({"data_format": "hdf5", "total_steps": 6, **said}))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for episode in range(2):
            group = file.create_group(f"episode_{episode}")
            group.create_dataset("observations", data=np.zeros((4, 2), np.float32))
            group.create_dataset("actions", data=np.zeros((3, 2), np.float32))
            group.create_dataset("rewards", data=np.ones(3))
            group.create_dataset("terminations", data=np.arange(3) == 2)
            group.create_dataset("truncations", data=np.zeros(3, bool))
