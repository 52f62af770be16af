"""A watch over environments that are stepped in this process, where nothing can stop one that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, MutableSequence


class Watchdog:
    """Warn once about each call into an environment that does not return within ``seconds``.

    ``begin`` and ``end`` only write down a time; one daemon thread looks at it now and then. ``progress`` holds the
    index of the environment that is being stepped (-1 where only the whole vector is known) and the number of the step
    (0 for a reset), kept up to date by the stepping loop. An environment that hangs in compiled code without releasing
    Python's lock cannot be noticed.
    """

    def __init__(
        self, name: str, progress: MutableSequence[int] | memoryview, warn: Callable[[str], None], seconds: float = 60.0
    ) -> None:
        self._name = name
        self._progress = progress
        self._warn = warn
        self._seconds = seconds
        self._began: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name=f"watchdog of {name}", daemon=True).start()

    def begin(self) -> None:
        """Note that a call into the environments begins."""
        self._began = time.monotonic()

    def end(self) -> None:
        """Note that the call has returned."""
        self._began = None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _watch(self) -> None:
        warned: float | None = None
        while not self._closed.wait(min(self._seconds / 4, 5.0)):
            began = self._began
            if began is not None and began != warned and time.monotonic() - began >= self._seconds:
                warned = began
                self._warn(self._sentence())

    def _sentence(self) -> str:
        index, step = self._progress
        who = self._name if index < 0 else f"environment {index} of {self._name}"
        call = f"step {step}" if step else "its reset"
        return (
            f"{who} has not returned from {call} for {self._seconds:g} s; nothing in this process can stop it, "
            "worker processes could: --workers 2."
        )
