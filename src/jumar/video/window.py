"""Where a policy is watched: a window of tkinter's, which comes with Python, or the terminal for renderers that write."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time
from collections.abc import Mapping
from typing import IO, Any, Protocol

import numpy as np

from jumar.console.terminal import can_draw, columns_of
from jumar.errors import UsageError
from jumar.video.frames import for_terminal

POLL = 0.02
"""Seconds between looks at what the user does."""


class Screen(Protocol):
    """Shows pictures to a person, who may close it."""

    closed: bool

    def wait(self, until: float) -> None:
        """Stay until a time of the monotonic clock, or until it is closed."""
        ...

    def close(self) -> None:
        """Take it away."""
        ...


class Window:
    """A window of tkinter's. ``q``, Escape and the window's own button close it.

    Raises:
        UsageError: tkinter is missing, or no display answers.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise UsageError(
                "Python's tkinter, which shows the pictures, is not installed: on Debian and Ubuntu, apt install python3-tk. "
                "jumar record makes a film without it."
            ) from error
        self._tk: Any = tkinter
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise UsageError(
                f"no window can be opened ({str(error).strip()}). jumar record makes a film without a display."
            ) from error
        self.closed = False
        self._root.title(title)
        self._root.resizable(False, False)
        self._picture: Any = None
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self._leave)
        for key in ("q", "Q", "<Escape>"):
            self._root.bind(key, lambda event: self._leave())

    def _leave(self) -> None:
        self.closed = True

    def show(self, frame: np.ndarray) -> None:
        """Show a frame, uint8 ``[height, width, 3]``."""
        height, width = frame.shape[:2]
        data = b"P6 %d %d 255\n" % (width, height) + np.ascontiguousarray(frame).tobytes()
        with self._until_gone():
            # Kept: tkinter itself holds no reference to a picture that it shows.
            self._picture = self._tk.PhotoImage(master=self._root, data=data, format="PPM")
            self._label.configure(image=self._picture)
            self._root.update()

    def wait(self, until: float) -> None:
        """Answer the user until a time of the monotonic clock, or until the window is closed."""
        while not self.closed and (left := until - time.monotonic()) > 0:
            with self._until_gone():
                self._root.update()
            time.sleep(min(POLL, left))

    def close(self) -> None:
        """Take the window away."""
        with contextlib.suppress(self._tk.TclError):
            self._root.destroy()

    @contextlib.contextmanager
    def _until_gone(self) -> Any:
        """A window that has gone, with the display say, counts as closed."""
        try:
            yield
        except self._tk.TclError:
            self.closed = True


class Unseen:
    """Stands for the window that an environment opens itself, in its own process."""

    closed = False

    def wait(self, until: float) -> None:
        """Wait."""
        time.sleep(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Nothing is held."""


class Terminal:
    """Prints what renderers write, one text over the other where the stream is a terminal. ``q`` ends it there."""

    def __init__(self, stream: IO[str], environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._stream = stream
        self._able = can_draw(stream, environment)
        self._colours = self._able and not environment.get("NO_COLOR")
        self._lines = 0
        self.closed = False
        self._before = _without_echo()

    def show(self, text: str, caption: str) -> None:
        """Print a text, and a line below it."""
        width = columns_of(self._stream) or shutil.get_terminal_size().columns
        lines = [*for_terminal(text, self._colours).split("\n"), caption[: max(1, width - 1)]]
        if self._able and self._lines:
            self._stream.write(f"\x1b[{self._lines}A")
        end = "\x1b[K\n" if self._able else "\n"
        self._stream.write("".join(line + end for line in lines) + ("" if not self._able else "\x1b[J"))
        self._stream.flush()
        self._lines = len(lines)

    def wait(self, until: float) -> None:
        """Wait, and look whether ``q`` is typed."""
        while not self.closed and (left := until - time.monotonic()) > 0:
            if self._before is None:
                time.sleep(left)
            elif select.select([sys.stdin], [], [], left)[0]:
                typed = os.read(sys.stdin.fileno(), 64)
                self.closed = not typed or b"q" in typed.lower()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._before is not None:
            import termios

            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)


def _without_echo() -> Any:
    """Have the terminal hand on each key at once; return how it was, ``None`` where there is no terminal."""
    if not sys.stdin.isatty():
        return None
    try:
        import termios
    except ImportError:
        return None
    try:
        descriptor = sys.stdin.fileno()
        before, changed = termios.tcgetattr(descriptor), termios.tcgetattr(descriptor)
        changed[3] &= ~(termios.ICANON | termios.ECHO)  # Ctrl-C still is a signal
        termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    except (termios.error, OSError):
        return None
    return before
