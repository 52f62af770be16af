"""What a person sees of a run: one live panel on a terminal, plain lines in a log, or nothing.

A reporter is told what happens and draws when it likes. It never raises because of the terminal it writes to: a run
must not end because the window that showed it was closed.
"""

from __future__ import annotations

import math
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Protocol

from jumar.console.terminal import NARROWEST, columns_of
from jumar.runs.standing import Standing, standing
from jumar.text import clock_time, counted, percent, percent_done, printable, short_number

Clock = Callable[[], float]

STEPS = "time/total_timesteps"
SPEED = "time/steps_per_second"
RETURN = "rollout/ep_rew_mean"
EPISODE_LENGTH = "rollout/ep_len_mean"
EPISODE_COST = "rollout/ep_cost_mean"
INFO = "info/"
SHARES = {
    "time/environment_share": "environment",
    "time/rollout_share": "environment and policy",
    "time/policy_share": "policy",
    "time/learning_share": "policy and update",
    "time/update_share": "update",
}
"""What an iteration's time goes into; what is one program has one share."""


class Reporter(Protocol):
    """What a training loop tells about itself. Methods may be called from any thread."""

    def started(self, info: Mapping[str, Any]) -> None:
        """The run begins: ``algorithm env backend seed n_envs total_timesteps run_dir device n_seeds`` as known.

        ``total_timesteps`` are those of whole iterations, ``enough_timesteps`` those after which none begins any more.
        A resumed run gives the step that it goes on from as ``start_step``.
        """
        ...

    def iteration(self, metrics: Mapping[str, float]) -> None:
        """An iteration has ended; ``metrics`` has the keys of ``metrics.jsonl``."""
        ...

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """An evaluation has ended; ``record`` is its line of ``evaluations.jsonl`` (``step``, ``returns``, ...)."""
        ...

    def checkpoint(self, step: int) -> None:
        """A checkpoint of this step is safe on the disk."""
        ...

    def note(self, text: str) -> None:
        """Something worth one line: a choice that was made, a file that was saved."""
        ...

    def warn(self, text: str) -> None:
        """Something is off; said in words."""
        ...

    def finished(self, summary: Mapping[str, Any]) -> None:
        """The run is complete; ``summary`` is what ``--json`` prints."""
        ...

    def close(self) -> None:
        """Give the terminal back; safe to call twice, and whatever happened before."""
        ...


class Silent:
    """Shows nothing but warnings, and those only where a stream is given."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream

    def started(self, info: Mapping[str, Any]) -> None:
        """Show nothing."""

    def iteration(self, metrics: Mapping[str, float]) -> None:
        """Show nothing."""

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Show nothing."""

    def checkpoint(self, step: int) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Write the warning on a line of its own."""
        if self._stream is not None:
            write_line(self._stream, f"warning: {text}")

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


# What the reporters know of a run ------------------------------------------------------------------------------------


class History:
    """The course of one number over a whole run in bounded memory: means over equally many iterations each.

    When the bins are full, neighbours are merged and each new bin takes twice as many values. ``None`` and NaN are
    left out.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._bins: list[float] = []
        self._per_bin = 1
        self._sum = 0.0
        self._count = 0

    def add(self, value: float | None) -> None:
        """Take one more value in."""
        if value is None or not math.isfinite(value):
            return
        self._sum += value
        self._count += 1
        if self._count == self._per_bin:
            self._bins.append(self._sum / self._count)
            self._sum, self._count = 0.0, 0
        if len(self._bins) == self._capacity:
            self._bins = [(a + b) / 2 for a, b in zip(self._bins[::2], self._bins[1::2], strict=True)]
            self._per_bin *= 2

    def values(self) -> list[float]:
        """Return the means, the oldest first, with the unfinished bin at the end."""
        return self._bins + ([self._sum / self._count] if self._count else [])


@dataclass(frozen=True)
class Glyphs:
    """The characters that the display is drawn with, for a terminal that has them and for one that has only ASCII."""

    ramp: str
    plus_minus: str
    separator: str
    best: str
    warning: str

    @classmethod
    def for_encoding(cls, encoding: str | None) -> Glyphs:
        """Choose by the encoding of the output."""
        if (encoding or "ascii").lower().startswith("utf"):
            return cls("▁▂▃▄▅▆▇█", "±", " · ", "★ best so far", "▲")
        return cls("_.-~=*%#", "+-", ", ", "best so far", "!")


class Course:
    """How far a run is and how long it will take, from what the loop reports."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._anchor: tuple[float, float] | None = None
        self.info: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}
        self.evaluation: dict[str, Any] | None = None
        self.best: tuple[float, int] | None = None
        self._best_standing: Standing | None = None
        self.returns = History()
        self.checkpoint: int | None = None
        self.complete = False

    def start(self, info: Mapping[str, Any]) -> None:
        """Take in the description of the run."""
        self._began = self._clock()
        self.info = {key: printable(value) if isinstance(value, str) else value for key, value in info.items()}

    def advance(self, metrics: Mapping[str, float]) -> None:
        """Take in an iteration; a value that is missing this time stays as it was."""
        self.metrics.update({key: value for key, value in metrics.items() if value is not None})
        self.returns.add(metrics.get(RETURN))
        if self._anchor is None:
            # The first iteration holds the compilation: the time left is judged by what comes after it.
            self._anchor = (self._clock(), self.steps)

    def evaluate(self, record: Mapping[str, Any]) -> None:
        """Take in an evaluation and keep the best."""
        self.evaluation = dict(record)
        mean, _ = mean_and_deviation(record)
        here = standing({**record, "mean_return": mean})
        if math.isfinite(mean) and (self._best_standing is None or here > self._best_standing):
            self.best, self._best_standing = (mean, int(record.get("step", self.steps))), here

    @property
    def steps(self) -> int:
        """Environment steps taken so far."""
        return int(self.metrics.get(STEPS, self.info.get("start_step") or 0))

    @property
    def total(self) -> int:
        """Environment steps to take; once they are enough, those taken: where pools begin episodes some rows are no steps."""
        planned = int(self.info.get("total_timesteps") or 0)
        return self.steps if planned > self.steps >= int(self.info.get("enough_timesteps") or planned) else planned

    @property
    def share(self) -> float:
        """The part of the run that is done, from 0 to 1."""
        return min(self.steps / self.total, 1.0) if self.total else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the run was started or resumed."""
        return self._clock() - self._began

    @property
    def compiling(self) -> bool:
        """Whether no iteration has ended yet."""
        return STEPS not in self.metrics

    def seconds_left(self) -> float | None:
        """Estimate the time left from the mean speed since the first iteration; ``None`` as long as it is unknown."""
        if self._anchor is None:
            return None
        began, first = self._anchor
        taken = self.steps - first
        per_second = taken / max(self._clock() - began, 1e-9) if taken > 0 else self.metrics.get(SPEED, 0.0)
        return (self.total - self.steps) / per_second if per_second > 0 else None

    def title(self) -> str:
        """Return for example ``ppo on HalfCheetah-v5``."""
        return f"{self.info.get('algorithm', 'training')} on {self.info.get('env', '?')}"

    def circumstances(self) -> list[str]:
        """Return what the run runs on, in a few words each."""
        info = self.info
        seeds = info.get("n_seeds")
        words = [
            str(info["backend"]) if info.get("backend") else "",
            counted(int(info["n_envs"]), "environment") if info.get("n_envs") else "",
            f"{seeds} seeds from {info.get('seed', 0)}" if seeds else f"seed {info.get('seed', 0)}",
            str(info["device"]) if info.get("device") else "",
        ]
        return [word for word in words if word]


# Numbers and words ---------------------------------------------------------------------------------------------------


def mean_and_deviation(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the mean return of an evaluation and its deviation over the episodes (NaN where there is none)."""
    returns = [float(value) for value in record.get("returns") or ()]
    if not returns:
        return float(record.get("mean_return", math.nan)), float(record.get("std_return", math.nan))
    mean = sum(returns) / len(returns)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in returns) / len(returns))


SHOWN: tuple[tuple[tuple[str, ...], str, Callable[[float], str]], ...] = (
    ((EPISODE_COST,), "episode cost", short_number),
    (("train/mean_kl", "train/approx_kl"), "KL", short_number),
    (("train/clip_fraction",), "clip fraction", percent),
    (("train/q_mean",), "Q", short_number),
    (("train/q_overestimation",), "Q too high by", short_number),
    (("train/td_error",), "TD error", short_number),
    (("train/ent_coef",), "temperature", short_number),
    (("train/entropy",), "entropy", short_number),
    (("train/explained_variance",), "explained variance", short_number),
    (("train/value_loss",), "value loss", short_number),
    (("train/policy_objective_after", "train/actor_loss"), "policy objective", short_number),
    (("train/learning_rate",), "learning rate", short_number),
    (("train/grad_norm",), "gradient norm", short_number),
    (("train/max_kl",), "max KL", short_number),
    (("train/kl_coef",), "KL coefficient", short_number),
    (("train/step_fraction",), "step taken", percent),
    (("train/line_search_tries",), "line search tries", short_number),
    (("train/cg_residual",), "CG residual", short_number),
    ((EPISODE_LENGTH,), "episode length", short_number),
)
"""What is shown of an iteration: the keys of which the first present one is taken, the label, and the form."""


def shown_metrics(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return label and text of the metrics that are present, the most telling first."""
    rows = [(f"{INFO}{key}", short_number(x)) for key, x in _asked_for(metrics).items()]
    for keys, label, form in SHOWN:
        key = next((key for key in keys if key in metrics), None)
        if key is not None:
            rows.append((LABELS.get(key, label), form(float(metrics[key]))))
    return rows


def shares_in_words(metrics: Mapping[str, float], width: int) -> str:
    """Return for example ``environment 62 %, policy 11 %, update 27 %``, in at most so many characters.

    The text is empty where no share is known, or there is no room.
    """
    words = ", ".join(f"{words} {percent(metrics[key])}" for key, words in SHARES.items() if key in metrics)
    return next((text for text in (words, words.replace("environment", "env")) if len(text) <= width), "")


def _asked_for(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the means of entries of ``info``, which somebody has asked for."""
    return {printable(name.removeprefix(INFO)): float(x) for name, x in metrics.items() if name.startswith(INFO)}


LABELS = {"train/actor_loss": "actor loss"}
"""Labels of the metrics that stand in for another one."""


# Plain lines ---------------------------------------------------------------------------------------------------------


def write_line(stream: IO[str], line: str) -> None:
    """Write a line in the stream's encoding as well as it goes; a broken stream is left alone."""
    line = printable(line)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with suppress(OSError, ValueError):  # ValueError: the stream was closed
        stream.write(line.encode(encoding, "replace").decode(encoding, "replace") + "\n")
        stream.flush()


class PlainLines:
    """Lines for a log: one about every 5 seconds or every 5 % of the run, and one for each evaluation.

    A long run gets fewer: the pause grows to a minute, a twentieth of the time that has passed.
    On a terminal, lines are broken between words.
    """

    SECONDS = 5.0
    LONGEST_PAUSE = 60.0
    SHARE = 0.05

    def __init__(self, stream: IO[str], clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._course = Course(clock)
        self._glyphs = Glyphs.for_encoding(getattr(stream, "encoding", None))
        self._last_time = clock()
        self._last_share = 0.0
        self._unsaid = False
        self._lock = threading.RLock()

    def started(self, info: Mapping[str, Any]) -> None:
        """Say what is trained, on what, for how long, and where it is saved."""
        course = self._course
        course.start(info)
        self._last_time, self._last_share = self._clock(), course.share
        parts = [course.title(), *course.circumstances(), f"{course.total:,} steps"]
        if course.steps:
            parts.append(f"going on from step {course.steps:,}")
        self._say(", ".join(parts) + (f" -> {info['run_dir']}" if info.get("run_dir") else ""))

    def iteration(self, metrics: Mapping[str, float]) -> None:
        """Write a line if it is time for one."""
        course = self._course
        first = course.compiling
        course.advance(metrics)
        self._unsaid = True
        pause = min(max(self.SECONDS, course.elapsed / 20), self.LONGEST_PAUSE)
        if first or self._clock() - self._last_time >= pause or course.share - self._last_share >= self.SHARE:
            self._say_progress()

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Write the evaluation's mean return."""
        self._course.evaluate(record)
        self._say("evaluation " + evaluation_words(record, self._glyphs))

    def checkpoint(self, step: int) -> None:
        """Keep quiet: the log would be full of it."""
        self._course.checkpoint = step

    def note(self, text: str) -> None:
        """Write the note."""
        self._say(text)

    def warn(self, text: str) -> None:
        """Write the warning."""
        self._say(f"warning: {text}")

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Write the last iteration's line if it is not there yet."""
        self._course.complete = True
        if self._unsaid:
            self._say_progress()

    def close(self) -> None:
        """Do nothing: every line was flushed."""

    def _say_progress(self) -> None:
        course = self._course
        self._last_time, self._last_share, self._unsaid = self._clock(), course.share, False
        parts = [f"{percent_done(course.share)} {course.steps:>{len(f'{course.total:,}')},} steps"]
        if SPEED in course.metrics:
            parts.append(f"{course.metrics[SPEED]:,.0f} steps/s")
        if not course.complete:
            parts.append(f"left {clock_time(course.seconds_left())}")
        if RETURN in course.metrics:
            parts.append(f"return {short_number(course.metrics[RETURN])}")
        parts += [f"{label} {text}" for label, text in shown_metrics(course.metrics)[:4]]
        self._say("  ".join(parts))

    def _say(self, line: str) -> None:
        with self._lock:
            columns = columns_of(self._stream)
            broken = (
                None if columns is None else textwrap.wrap(line, max(columns - 1, NARROWEST), subsequent_indent="    ")
            )
            for each in broken or [line]:
                write_line(self._stream, each)


def evaluation_words(record: Mapping[str, Any], glyphs: Glyphs) -> str:
    """Return for example ``at step 20,480: return 312.5 ± 10.2 over 10 episodes``."""
    mean, deviation = mean_and_deviation(record)
    words = f"return {short_number(mean)}"
    if math.isfinite(deviation):
        words += f" {glyphs.plus_minus} {short_number(deviation)}"
    episodes = len(record.get("returns") or ())
    words += f" over {counted(episodes, 'episode')}" if episodes else ""
    words += f", {cut:,} of them cut before they ended" if (cut := record.get("cut_episodes")) else ""
    return f"at step {int(record['step']):,}: {words}" if "step" in record else words
