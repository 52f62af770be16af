"""Runs the sides of a comparison as processes, in turns, and measures each from outside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from report import ComparisonResult, Measurement, SideResult, round_steps

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
ENVIRONMENTS = HERE / ".environments"
INSTALL_LIMIT_S = 1800.0
POLL_S = 0.02
"""How often a process is asked whether it has ended: short beside what is measured, long beside a system call."""

Say = Callable[[str], None]


def say(words: str) -> None:
    """Tell how it goes."""
    print(words, file=sys.stderr, flush=True)


def options(values: Mapping[str, object]) -> tuple[str, ...]:
    """Return settings as words of a command line."""
    return tuple(word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value)))


class Failed(Exception):
    """A process failed; the text is the reason, in one line."""


@dataclass(frozen=True)
class Variant:
    """One way to run a side.

    Args:
        name: what to call it in the table; empty where there is no other.
        words: the command after the interpreter, without the number of steps.
    """

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Side:
    """One contestant. Every command takes ``--total-timesteps``, and prints a JSON object as its last line.

    Args:
        name: a short name.
        title: what the table calls it.
        variants: the ways to run it; the fastest in a short trial is measured.
        trial_steps: steps of that trial.
        peer: the environment it needs, a name of ``peers/NAME.txt``; ``None`` for Jumar's own interpreter.
        run_dir: whether it takes ``--run-dir``.
        seeds: of how many seeds it counts the steps of one; its rate is of all.
        times: how many times as long as the others it runs.
        random_steps: steps of each seed that it takes at first without learning. They come on top of the steps that are
            wanted; its rate is that of the others.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    trial_steps: int
    peer: str | None = None
    run_dir: bool = False
    seeds: int = 1
    times: float = 1.0
    random_steps: int = 0


@dataclass(frozen=True)
class Comparison:
    """Sides that take ``rollout`` environment steps an iteration.

    Args:
        name: a short name.
        title: the heading of its table.
        rollout: a process runs for a multiple of so many steps.
        sides: the contestants.
        reference: the side that the others are measured by; ``None``: Jumar is measured by the others.
    """

    name: str
    title: str
    rollout: int
    sides: tuple[Side, ...]
    reference: str | None = None


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: float
    rounds: int

    @property
    def limit_s(self) -> float:
        """When a process has gone wrong: far beyond what it should take, compilation on a slow machine included."""
        return 180.0 + 10.0 * self.seconds


@dataclass
class Peers:
    """The peers' environments, installed when first needed; a failure is remembered."""

    say: Say
    _ready: dict[str, Path | Failed] = field(default_factory=dict)

    def interpreter(self, peer: str | None) -> Path:
        """Return the interpreter of a peer's environment, or Jumar's own.

        Raises:
            Failed: the environment could not be installed.
        """
        if peer is None:
            return Path(sys.executable)
        if peer not in self._ready:
            try:
                self._ready[peer] = install(peer, self.say)
            except Failed as failure:
                self._ready[peer] = failure
        ready = self._ready[peer]
        if isinstance(ready, Failed):
            raise ready
        return ready


def install(peer: str, say: Say) -> Path:
    """Make a virtual environment from ``peers/PEER.txt``, unless it is there and up to date; return its interpreter.

    Raises:
        Failed: with what pip said.
    """
    requirements, folder = PEERS / f"{peer}.txt", ENVIRONMENTS / peer
    interpreter, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if interpreter.exists() and stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    say(f"installing {requirements.name} in an environment of its own (once) ...")
    pip = [interpreter, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--requirement", requirements]
    for command in ([sys.executable, "-m", "venv", "--clear", folder], pip):
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{peer} could not be installed: {type(error).__name__}") from None
        if run.returncode:
            raise Failed(f"{peer} could not be installed: {last_line(run.stderr) or f'exit code {run.returncode}'}")
    stamp.write_text(wanted)
    return interpreter


def compare(
    comparison: Comparison, effort: Effort, peers: Peers, result: ComparisonResult, say: Say, save: Callable[[], None]
) -> None:
    """Try every side, then measure them in turns (A B C A B C ...), filling ``result``; ``save`` after each step."""
    with tempfile.TemporaryDirectory(prefix="jumar-speed-") as name:
        bench = _Bench(comparison, effort, peers, Path(name), say)
        steps: dict[str, int] = {}
        for side in comparison.sides:
            outcome = SideResult(side.name, side.title)
            result.sides.append(outcome)
            steps[side.name] = bench.try_variants(side, outcome)
            save()
        for index in range(effort.rounds):
            for side, outcome in zip(comparison.sides, result.sides, strict=True):
                if outcome.failure is None:
                    bench.measure_round(side, outcome, steps[side.name], index)
                    save()


@dataclass(frozen=True)
class _Bench:
    """What the trials and rounds of one comparison have in common."""

    comparison: Comparison
    effort: Effort
    peers: Peers
    scratch: Path
    say: Say

    def try_variants(self, side: Side, outcome: SideResult) -> int:
        """Run every variant shortly; note the fastest, and return the steps that take it as long as is wanted."""
        for variant in side.variants:
            try:
                outcome.trials[variant.name] = self._run(side, variant, side.trial_steps)
            except Failed as failure:
                outcome.failed_trials[variant.name] = str(failure)
                self.say(f"{self._label(outcome, variant)}, trial: failed: {failure}")
            else:
                rate = outcome.trials[variant.name].steps_per_second
                self.say(f"{self._label(outcome, variant)}, trial: {rate:,.0f} steps/s")
        if not outcome.trials:
            # One line is enough: there is nothing to tell variants apart by.
            outcome.failure = next(iter(outcome.failed_trials.values()))
            outcome.failed_trials.clear()
            return 0
        outcome.variant = max(outcome.trials, key=lambda name: outcome.trials[name].steps_per_second)
        rate = outcome.trials[outcome.variant].steps_per_second
        return round_steps(rate, self.effort.seconds * side.times, self.comparison.rollout)

    def measure_round(self, side: Side, outcome: SideResult, steps: int, index: int) -> None:
        """Add one round to the outcome, or the reason why there is none."""
        variant = next(one for one in side.variants if one.name == outcome.variant)
        label = f"{self._label(outcome, variant)}, round {index + 1} of {self.effort.rounds}"
        try:
            measured = self._run(side, variant, steps)
        except Failed as failure:
            outcome.failure = f"round {index + 1}: {failure}"
            self.say(f"{label}: failed: {failure}")
            return
        outcome.rounds.append(measured)
        self.say(f"{label}: {measured.steps_per_second:,.0f} steps/s")

    def _run(self, side: Side, variant: Variant, steps: int) -> Measurement:
        each = max(1, steps // side.seeds) + side.random_steps
        command = [str(self.peers.interpreter(side.peer)), *variant.words, "--total-timesteps", str(each)]
        run_dir = self.scratch / "run"
        if side.run_dir:
            shutil.rmtree(run_dir, ignore_errors=True)
            command += ["--run-dir", str(run_dir)]
        measured = measure(command, self.scratch, self.effort.limit_s * max(1.0, side.times))
        measured = without_random_steps(measured, side.random_steps, run_dir, side.seeds)
        return replace(measured, total_timesteps=measured.total_timesteps * side.seeds)

    def _label(self, outcome: SideResult, variant: Variant) -> str:
        return ", ".join(filter(None, (self.comparison.name, outcome.title, variant.name)))


def without_random_steps(measured: Measurement, random_steps: int, run_dir: Path, seeds: int = 1) -> Measurement:
    """Return the measurement with the rate of what follows the line of the log in which the random steps end.

    Args:
        measured: its steps are those of one seed, its rate is of all.
        random_steps: of each seed.
        run_dir: what the process left.
        seeds: how many there are.

    Raises:
        Failed: no steps follow, or the log does not say.
    """
    if random_steps == 0:
        return measured
    log = run_dir / ("seed_0" if seeds > 1 else "") / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        counted = [(int(line["time/total_timesteps"]), float(line["time/steps_per_second"])) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"its log cannot be read: {error}") from None
    random, rate = next((at for at in counted if at[0] >= random_steps), (measured.total_timesteps, 1.0))
    learning = measured.total_timesteps - random
    if learning < 1:
        raise Failed(f"of its {measured.total_timesteps} steps none follows the random ones")
    seconds = (measured.total_timesteps / measured.steps_per_second - random / rate) * seeds
    return replace(measured, steps_per_second=learning * seeds / seconds)


def measure(command: list[str], scratch: Path, limit_s: float, first_on_path: Path | None = None) -> Measurement:
    """Run a command to its end; return what it says of itself in its last line, and what is seen from outside.

    It runs in ``scratch``, where its compile cache is, too: the first command there finds none. ``first_on_path`` is
    where Python looks for modules first.

    Raises:
        Failed: it did not end in time, ended with an error, or said nothing that can be read.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        try:
            # A session of its own, so that it can be stopped together with all that it started.
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=errors,
                cwd=scratch,
                env=_surroundings(scratch, first_on_path),
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(f"it could not be started: {error.strerror}") from None
        code, peak = _wait(process, start + limit_s)
        process_s = time.perf_counter() - start
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read())
    if code is None:
        raise Failed(f"it took longer than {limit_s:.0f} s")
    if code:
        raise Failed(last_line(texts[1]) or last_line(texts[0]) or f"exit code {code}")
    return read_measurement(texts[0], process_s, peak)


def read_measurement(output: str, process_s: float, peak_memory_mib: float) -> Measurement:
    """Read the JSON object in the last line of a command's output.

    Raises:
        Failed: there is none, or its numbers are none.
    """
    try:
        said = json.loads(last_line(output))
        steps, rate = int(said["total_timesteps"]), float(said["steps_per_second"])
        compiling = said.get("compile_time_s")
        compile_time_s = None if compiling is None else float(compiling)
        versions = {str(name): str(version) for name, version in said.get("versions", {}).items()}
        profile = {str(name): float(ms) for name, ms in said.get("profile", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failed(f"its last line is no result: {last_line(output)[:200]!r}") from None
    if steps < 1 or not (math.isfinite(rate) and rate > 0):
        raise Failed(f"it reports {steps} steps at {rate} steps/s")
    return Measurement(steps, rate, process_s, peak_memory_mib, compile_time_s, versions, profile)


def last_line(text: str) -> str:
    """Return the last line that is not empty, without the paths of this checkout."""
    lines: Iterable[str] = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line), "").replace(str(HERE.parent), ".")


def _wait(process: subprocess.Popen[bytes], deadline: float) -> tuple[int | None, float]:
    """Wait for the end; return (exit code or ``None`` if it was late, peak memory in MiB). Leaves no process behind."""
    try:
        while time.perf_counter() < deadline:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                unit = 2**20 if sys.platform == "darwin" else 2**10
                return process.returncode, usage.ru_maxrss / unit
            time.sleep(POLL_S)
        return None, 0.0
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process and of those that it started, also after Ctrl-C."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        process.wait()


def _surroundings(scratch: Path, first_on_path: Path | None) -> dict[str, str]:
    """Return the environment variables of a measured process: the processor only, and a compile cache of its own."""
    kept = {
        name: x for name, x in os.environ.items() if name not in ("JUMAR_NO_COMPILE_CACHE", "JAX_COMPILATION_CACHE_DIR")
    }
    folders = (first_on_path, PEERS, os.environ.get("PYTHONPATH"))  # the slow environment lies among the peers
    paths = os.pathsep.join(str(folder) for folder in folders if folder)
    return {**kept, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(scratch / "cache"), "PYTHONPATH": paths}
