"""Comparisons and sweeps that are killed or stopped, and begun again."""

from __future__ import annotations

import hashlib
import importlib.util
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jumar.drills.processes import Running, command, complaint, jumar
from jumar.drills.registry import Bench, Try, Unable, drill

SETTINGS = "n_envs=2,n_steps=32,net_arch=8,preset=none"
METHODS = f"ppo:{SETTINGS},n_epochs=1,batch_size=32,a2c:{SETTINGS}"
COMPARE = ["compare", "--algorithms", METHODS, "--envs", "jax/CartPole-v1", "--seeds", "2", "--last", "3"]
COMPARE += ["--total-timesteps", "20000", "--eval-every", "5000", "--eval-episodes", "2"]
SPACE = """\
algorithm = "ppo"
env = "jax/CartPole-v1"
total_timesteps = 2048
seeds = 2
trials = 4
startup_trials = 2
preset = "none"
eval_episodes = 2

[settings]
n_envs = 2
net_arch = [8]
n_epochs = 1

[search]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
n_steps = { choices = [32, 64] }
batch_size = { choices = [32, 64] }
"""
SAME = "begun again, it goes on and ends with the policies and the table of one that nothing disturbed."


@drill(
    "studies/compare",
    "A comparison (two methods, two seeds) is killed by kill -9 or stopped by SIGINT at random moments.",
    SAME,
    whole=6,
    quick=1,
)
def compare(bench: Bench) -> Iterator[Try]:
    yield from _disturbed(bench, COMPARE)


@drill("studies/sweep", "A sweep is killed by kill -9 or stopped by SIGINT at random moments.", SAME, whole=6, quick=1)
def sweep(bench: Bench) -> Iterator[Try]:
    if importlib.util.find_spec("optuna") is None:
        raise Unable("Optuna is not installed.")
    (bench.folder / "space.toml").write_text(SPACE)
    yield from _disturbed(bench, ["sweep", str(bench.folder / "space.toml"), "--parallel", "2"])


def _disturbed(bench: Bench, words: Sequence[str]) -> Iterator[Try]:
    whole, place = bench.folder / "whole", bench.folder
    start = time.monotonic()
    ended = jumar(*words, "--out", whole, "--json", folder=place)
    if (wrong := complaint(ended, (0,))) is not None:
        raise RuntimeError(f"the study that nothing disturbs failed: {wrong}")
    duration = time.monotonic() - start
    for number in range(bench.tries or 1):
        out, how = place / str(number), bench.random.choice((signal.SIGKILL, signal.SIGINT))
        wait = bench.random.uniform(0.1, 0.8) * duration
        with Running(command(*words, "--out", out, "--json"), place) as running:
            time.sleep(wait)
            running.send(how)
            stopped = running.wait()  # what it started is left alone, and must stop by itself
        wrong = complaint(stopped, (0, -signal.SIGKILL, 128 + signal.SIGINT))
        if wrong is None:
            again = jumar(*words, "--out", out, "--json", folder=place)
            wrong = complaint(again, (0,)) or _difference(whole, out)
        yield Try(f"{how.name} after {wait:.1f} s", wrong)


def _difference(whole: Path, other: Path) -> str | None:
    found, expected = _policies(other), _policies(whole)
    if found != expected:
        differing = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        return f"{differing[0]} has another policy than in the study that nothing disturbed"
    table = "trials.csv"
    if (whole / table).exists() and (whole / table).read_text() != (other / table).read_text():
        return f"{table} is another one"
    return None


def _policies(out: Path) -> dict[str, str]:
    """Return the digest of each final policy, by the path of its run; seeds of one program may be trained apart."""
    found = [path for path in out.rglob("policy.safetensors") if path.parent.name != "best"]
    return {str(path.parent.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
