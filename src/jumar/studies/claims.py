"""Processors of this machine that a process of Jumar has for its jobs, so that others choose other ones."""

from __future__ import annotations

import random
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from jumar.xla.compiler import processors


@dataclass
class Claims:
    """Processors that are claimed until it is closed, or the process is gone; a context manager.

    Attributes:
        numbers: of the processors, in rising order.
    """

    numbers: tuple[int, ...]
    _held: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others have them."""
        self._held.close()


def claim(number: int, *, anywhere: bool = False) -> Claims:
    """Claim so many of the processors that this process may use.

    Batch systems that confine a job to its processors leave nothing to choose. Elsewhere those are taken that no other process
    of Jumar has claimed; if there are too few, some are shared. A claim is a name in the kernel (Linux), which is free again
    when the process is gone.

    Args:
        number: how many; of more than there are, all.
        anywhere: begin to look at a random one, and not at the first.
    """
    allowed = processors()
    if len(allowed) <= number or not sys.platform.startswith("linux"):
        return Claims(tuple(allowed[:number]))
    first = random.randrange(len(allowed)) if anywhere else 0
    with ExitStack() as stack:
        mine: list[int] = []
        for each in allowed[first:] + allowed[:first]:
            if len(mine) < number and _claim(each, stack):
                mine.append(each)
        others = [each for each in allowed if each not in mine]
        return Claims(tuple(sorted(mine + others[: number - len(mine)])), stack.pop_all())


def _claim(processor: int, held: ExitStack) -> bool:
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0jumar-processor-{processor}")
    except OSError:
        name.close()
        return False
    held.callback(name.close)
    return True
