"""The job behind ``jumar watch``: a policy acts before the user's eyes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import IO, Any

from jumar.collecting.evaluation import Seen
from jumar.collecting.stopping import Abandoned
from jumar.console.signals import Stopped, stop_on_signals
from jumar.errors import EnvironmentFault, UnsupportedEnvironment, UsageError
from jumar.text import printable
from jumar.training.plan import LARGEST_SEED, MOST_EPISODES
from jumar.video.actors import cast_of
from jumar.video.cameras import USUAL_RATE, Camera, camera_for
from jumar.video.frames import Caption, Framing
from jumar.video.opengl import has_display
from jumar.video.record import HOLD
from jumar.video.shown import Shown
from jumar.video.window import Screen, Terminal, Unseen, Window
from jumar.xla.compiler import prepare_compiler


def watch(viewing: Shown, warn: Callable[[str], None], tell: Callable[[str], None], stream: IO[str]) -> dict[str, Any]:
    """Show episodes of a run until the user closes the window; return what ``--json`` prints.

    Args:
        viewing: what is shown. See ``jumar watch --help``.
        warn: hears what is wrong and no error.
        tell: hears what goes on.
        stream: where renderers that write are shown.

    Raises:
        UsageError: something is wrong, or there is no display.
        EnvironmentFault: the environment or its renderer fails.
        Stopped: a signal came.
    """
    prepare_compiler(lambda words: None)
    cast = cast_of(viewing, every_checkpoint=False, warn=warn, verb="watch")
    [role] = cast.roles
    # Without a display an environment that writes can still be watched; where it only draws, the error says what to do.
    modes = ("human", "rgb_array", "ansi") if has_display() else ("ansi",)
    if not has_display() and cast.source.compiled:
        raise _no_display(cast.source.name)
    with stop_on_signals(lambda line: tell("stopping; once more stops at once")) as stop:
        try:
            camera = camera_for(cast.source, role.spaces, viewing.size, modes, tell, "the window is gone.")
        except UnsupportedEnvironment as error:
            if modes == ("ansi",):
                raise _no_display(cast.source.name) from error
            raise
        except EnvironmentFault as error:
            if "human" not in modes:
                raise
            raise EnvironmentFault(
                f"{error} Where the display does not answer, jumar record makes a film without one."
            ) from error
        with closing(camera):
            audience = _Audience(viewing, camera, role.title(camera.name), stream)
            evaluator = camera.evaluator(role.policy, not viewing.stochastic)
            episodes = viewing.episodes or min(MOST_EPISODES, LARGEST_SEED - viewing.seed)
            try:
                with closing(audience):
                    evaluator(
                        role.parameters,
                        role.moments,
                        episodes,
                        viewing.seed,
                        lambda: bool(stop) or audience.left,
                        spectator=audience,
                    )
            except Abandoned:
                if stop.signal is not None:
                    raise Stopped(stop.signal, "stopped.") from None
    return {
        "run_dir": str(cast.run),
        "env": camera.name,
        "episodes": len(audience.returns),
        "returns": audience.returns,
    }


def _no_display(name: str) -> UsageError:
    return UsageError(
        f"there is no display to show {name} on (DISPLAY and WAYLAND_DISPLAY are not set). jumar record makes a film of it "
        "without one."
    )


class _Audience:
    """The spectator that shows what it sees, at the pace of the environment."""

    def __init__(self, viewing: Shown, camera: Camera, title: str, stream: IO[str]) -> None:
        self._viewing, self._camera, self._title, self._stream = viewing, camera, title, stream
        self._framing = Framing(viewing.size, caption=True)
        self._pause = 1.0 / (viewing.rate or camera.rate or USUAL_RATE)
        self._screen: Screen | None = None
        self._due = time.monotonic()
        self.returns: list[float] = []
        """Of the episodes that were shown to their end."""

    @property
    def left(self) -> bool:
        """Whether the user has closed the window."""
        return self._camera.closed or (self._screen is not None and self._screen.closed)

    def __call__(self, seen: Seen) -> None:
        """Show a moment, and stay until the next one is due."""
        picture = self._camera.picture(seen)
        caption = Caption(self._title, seen.episode + 1, self._viewing.episodes, seen.step, seen.total)
        if picture is None:
            self._screen = self._screen or Unseen()
        elif isinstance(picture, str):
            if not isinstance(self._screen, Terminal):
                self._screen = Terminal(self._stream)
            self._screen.show(picture, printable(caption.lines[1]))
        else:
            if not isinstance(self._screen, Window):
                self._screen = Window(f"jumar watch {printable(str(self._viewing.run))}")
            self._screen.show(self._framing.frame(picture, caption))
        if seen.ended:
            self.returns.append(seen.total)
        # What was late, as the first step is while it compiles, is not caught up with.
        self._due = max(self._due, time.monotonic() - self._pause) + self._pause + (HOLD if seen.ended else 0.0)
        self._screen.wait(self._due)

    def close(self) -> None:
        """Take the window away."""
        if self._screen is not None:
            self._screen.close()
