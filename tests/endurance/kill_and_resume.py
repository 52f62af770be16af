"""Kill a run at random moments, resume it each time, and compare its policy with that of a run never stopped.

    python tests/endurance/kill_and_resume.py jax/CartPole-v1 --kills 10 --signal KILL
    python tests/endurance/kill_and_resume.py jax/Pendulum-v1 --algorithm sac -- --net-arch 8 --buffer-size 3000

Exits with 0 if ``policy.safetensors`` is the same file, byte for byte, and ``replay/`` holds the same segments and no other,
and with 1 if not. Everything after ``--`` goes to ``jumar train``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    """Run the comparison."""
    arguments, extra = parse()
    options = ["--total-timesteps", str(arguments.total_timesteps), "--seed", "3", *extra]
    options += ["--checkpoint-every", str(arguments.checkpoint_every), "--quiet", "--json"]
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        start = time.perf_counter()
        jumar("train", arguments.algorithm, arguments.env, "--run-dir", whole, *options)
        duration = time.perf_counter() - start
        expected = digest(whole)
        print(f"{arguments.env}: uninterrupted in {duration:.1f} s, sha256 {expected}", flush=True)
        command = ["train", arguments.algorithm, arguments.env, "--run-dir", str(broken), *options]
        number = getattr(signal, f"SIG{arguments.signal}")
        chance = random.Random(arguments.chance)
        for kill in range(arguments.kills):
            # The first stop must leave a run directory behind, so it waits for the checkpoint before the first step.
            process = start_jumar(*command)
            wait_for_checkpoint(broken, process)
            if kill % 2:  # every other one comes after it has begun to train, however long it compiles
                wait_for_lines(broken, process)
            time.sleep(chance.uniform(0.0, arguments.longest or 0.6 * duration))
            process.send_signal(number)
            process.communicate()
            print(f"  {kill + 1}: exit {process.returncode}, newest checkpoint {newest(broken)}", flush=True)
            command = ["resume", str(broken), "--quiet", "--json", *repeat(arguments.env)]
        result = jumar(*command)
        steps = [
            json.loads(line)["time/total_timesteps"] for line in (broken / "metrics.jsonl").read_text().splitlines()
        ]
        same = digest(broken) == expected
        sound = steps == sorted(set(steps))
        same_buffer = segments(broken) == segments(whole)
        print(f"  at last {result['total_timesteps']} steps, sha256 {digest(broken)}", flush=True)
        print(
            f"  {'the same policy' if same else 'ANOTHER POLICY'}; metrics {'whole' if sound else 'BROKEN'}; "
            f"{len(segments(whole))} segments, {'the same' if same_buffer else 'and here OTHERS'}",
            flush=True,
        )
    return 0 if same and sound and same_buffer else 1


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; return the options and what is meant for ``jumar train``."""
    own, extra = sys.argv[1:], []
    if "--" in own:
        cut = own.index("--")
        own, extra = own[:cut], own[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env")
    parser.add_argument("--algorithm", default="ppo")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--signal", choices=("KILL", "INT", "TERM"), default="KILL")
    parser.add_argument("--total-timesteps", type=int, default=60_000)
    parser.add_argument("--checkpoint-every", type=int, default=8_192)
    parser.add_argument("--longest", type=float, help="longest wait before a kill, in seconds (default: 0.6 of a run)")
    parser.add_argument("--chance", type=int, default=0, help="seed of the moments")
    return parser.parse_args(own), extra


def repeat(env: str) -> list[str]:
    """Return what a run on the user's own code needs once more."""
    return ["--env", env] if ":" in env else []


def start_jumar(*arguments: object) -> subprocess.Popen[bytes]:
    """Start a command in the background."""
    words = [sys.executable, "-m", "jumar", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def jumar(*arguments: object) -> dict[str, object]:
    """Run a command to its end and return its JSON."""
    process = start_jumar(*arguments)
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"jumar {' '.join(map(str, arguments))} failed with {process.returncode}:\n{errors.decode()}")
    return json.loads(output.decode().splitlines()[-1])


def wait_for_checkpoint(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until there is something to resume from, or the process has ended."""
    while newest(run) is None and process.poll() is None:
        time.sleep(0.02)


def wait_for_lines(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has logged an iteration, or has ended."""
    start, log = time.time(), run / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size and log.stat().st_mtime > start + 1.0):
        time.sleep(0.02)


def newest(run: Path) -> int | None:
    """Return the step of the newest checkpoint."""
    steps = [int(path.name) for path in (run / "checkpoints").glob("[0-9]" * 12)]
    return max(steps, default=None)


def segments(run: Path) -> list[str]:
    """Return the names of the segments of a replay buffer, which have the digests in them; none without one."""
    return sorted(path.name for path in (run / "replay").glob("*"))


def digest(run: Path) -> str:
    """Return the SHA-256 of a run's policy."""
    return hashlib.sha256((run / "policy.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
