"""The job behind ``jumar record``: episodes of a run's policy become a film."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from jumar.collecting.evaluation import Episodes, Seen
from jumar.collecting.stopping import Abandoned
from jumar.console.signals import Stopped, stop_on_signals
from jumar.errors import DamagedFile, UsageError
from jumar.runs.entries import make_folder
from jumar.text import counted, short_number
from jumar.video.actors import cast_of
from jumar.video.cameras import USUAL_RATE, Camera, camera_for
from jumar.video.encoders import Film, check_new_file, find_ffmpeg
from jumar.video.frames import Caption, Framing
from jumar.video.shown import Shown
from jumar.xla.compiler import prepare_compiler

HOLD = 0.7
"""Seconds for which the last picture of an episode stays."""
VIDEOS = "videos"
"""The folder of a run's films."""
MODES = ("rgb_array", "ansi")
"""Gymnasium's render modes of which a film can be made."""


@dataclass(frozen=True, kw_only=True)
class Shots(Shown):
    """What is filmed of a run, and how. See ``jumar record --help``.

    Attributes:
        episodes: of each policy.
        every_checkpoint: the policy of each checkpoint, and the best one.
        out: the new file; ``None`` for one in the run's folder of films.
        caption: whether words stand below the picture.

    Raises:
        UsageError: a number is out of its range, or two wishes contradict each other.
    """

    episodes: int = 1
    every_checkpoint: bool = False
    out: Path | None = None
    caption: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.best and self.every_checkpoint:
            raise UsageError("--every-checkpoint films the best policy, too; leave --best out.")


def record(shots: Shots, warn: Callable[[str], None], tell: Callable[[str], None]) -> dict[str, Any]:
    """Film episodes of a run; return what ``--json`` prints.

    Args:
        shots: what is filmed.
        warn: hears what is wrong and no error.
        tell: hears what goes on.

    Raises:
        UsageError: something that was asked for is wrong, or something is missing that draws or encodes.
        JumarError: the film cannot be made or written; there is no file then.
        Stopped: a signal came; there is no file.
    """
    if shots.out is not None:
        check_new_file(shots.out, "--out")
    if shots.out is None or shots.out.suffix.lower() == ".mp4":
        find_ffmpeg()  # better known now than after the episodes
    prepare_compiler(lambda words: None)
    cast = cast_of(shots, every_checkpoint=shots.every_checkpoint, warn=warn, verb="record")
    path = shots.out or _free_name(cast.run.path, shots)
    with stop_on_signals(lambda line: tell("stopping; once more stops at once")) as stop:
        camera = camera_for(cast.source, cast.roles[0].spaces, shots.size, MODES, tell, "no film was written.")
        with closing(camera):
            rate = shots.rate or camera.rate or USUAL_RATE
            if shots.rate is None and camera.rate is None:
                tell(f"{camera.name} does not say how many pictures make a second; {USUAL_RATE:g} are taken (--fps)")
            framing = Framing(shots.size, shots.caption)
            try:
                with Film(path, rate) as film:
                    results, evaluators = [], {}
                    for role in cast.roles:
                        # Policies that are made of the same share their programs.
                        if role.settings not in evaluators:
                            evaluators[role.settings] = camera.evaluator(role.policy, not shots.stochastic)
                        take = _Take(film, framing, camera, role.title(camera.name), shots.episodes, tell)
                        run, asked = evaluators[role.settings], (shots.episodes, shots.seed, lambda: bool(stop))
                        results.append(run(role.parameters, role.moments, *asked, spectator=take))
            except Abandoned:
                raise Stopped(stop.signal or 0, "stopped; no film was written.") from None
    episodes = Episodes(
        *(np.concatenate([getattr(one, part) for one in results]) for part in ("returns", "lengths", "cut"))
    )
    if complaint := episodes.complaint(cast.source.time_limit_remedy):
        warn(complaint)
    return {
        "run_dir": str(cast.run),
        "env": camera.name,
        "files": [str(path)],
        "episodes": len(episodes.returns),
        "returns": [float(x) for x in episodes.returns],
        "lengths": [int(x) for x in episodes.lengths],
        "steps": [role.step for role in cast.roles for _ in range(shots.episodes)],
        "frames": film.frames,
        "fps": rate,
    }


@dataclass(frozen=True)
class _Take:
    """The spectator of one policy's episodes, which adds what it sees to a film."""

    film: Film
    framing: Framing
    camera: Camera
    title: str
    episodes: int
    tell: Callable[[str], None]

    def __call__(self, seen: Seen) -> None:
        picture = self.camera.picture(seen)
        assert picture is not None, "nothing was asked to draw in a window"
        caption = Caption(self.title, seen.episode + 1, self.episodes, seen.step, seen.total)
        frame = self.framing.frame(picture, caption)
        for _ in range(max(1, round(HOLD * self.film.rate)) if seen.ended else 1):
            self.film.add(frame)
        if seen.ended:
            self.tell(
                f"{self.title}: episode {seen.episode + 1} of {self.episodes}, {counted(seen.step, 'step')}, return "
                f"{short_number(seen.total)}"
            )


def _free_name(run: Path, shots: Shots) -> Path:
    """Return a path in the run's folder of films that is not taken; the folder is made.

    Raises:
        UsageError: the folder cannot be made or written to.
    """
    folder = run / VIDEOS
    try:
        make_folder(folder)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made ({error.strerror}); give a file by --out.") from None
    except DamagedFile as error:
        raise UsageError(f"{error} Or give a file by --out.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {folder} cannot be written to; give a file by --out.")
    what = "checkpoints" if shots.every_checkpoint else "best" if shots.best else "final"
    stem = f"{what}_seed{shots.seed}" + ("_stochastic" if shots.stochastic else "")
    for number in count(1):
        path = folder / (f"{stem}.mp4" if number == 1 else f"{stem}-{number}.mp4")
        if not os.path.lexists(path):
            return path
    raise AssertionError("count never ends")
