"""The drills by name."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jumar.errors import UsageError, unknown

if TYPE_CHECKING:
    from jumar.drills.references import References

T = TypeVar("T")

GROUPS = (
    "environments",
    "kills",
    "signals",
    "streams",
    "disks",
    "entries",
    "files",
    "fuzz",
    "limits",
    "studies",
    "cache",
    "network",
    "runners",
    "soak",
)
"""The modules of ``jumar.drills.faults``, in the order in which their drills run."""


class Unable(Exception):
    """A drill cannot be run on this machine, or with what is installed: a sentence that says why."""


@dataclass(frozen=True)
class Try:
    """What came of one try.

    Attributes:
        what: which fault, in a few words.
        lost: what was lost, in a sentence; ``None`` where nothing was.
        measured: what is to stand below the table, a figure with its unit, say.
    """

    what: str
    lost: str | None = None
    measured: str | None = None


@dataclass(frozen=True)
class Sizes:
    """How long the runs of the soak are, in environment steps."""

    compiled: int = 100_000_000
    host: int = 10_000_000


@dataclass(frozen=True)
class Bench:
    """What a drill works with.

    Attributes:
        folder: an empty folder of its own. It is kept where something was lost.
        kept: a folder for what is to stay beside the table, such as a curve.
        tries: how many tries there are to be; ``None``: one of each case that there is.
        quick: whether it is a short drill.
        seed: of everything random.
        random: seeded by the seed and the drill's name.
        references: undisturbed runs, which all drills share.
        sizes: of the soak.
    """

    folder: Path
    kept: Path
    tries: int | None
    quick: bool
    seed: int
    random: random.Random
    references: References
    sizes: Sizes = field(default_factory=Sizes)

    def cases(self, every: Sequence[T]) -> Iterator[T]:
        """Yield the cases to try: every one, or ``tries`` of them, drawn at random and in their order; again if need be."""
        tries = len(every) if self.tries is None else self.tries
        while tries > 0:
            chosen = sorted(self.random.sample(range(len(every)), min(tries, len(every))))
            yield from (every[i] for i in chosen)
            tries -= len(chosen)


Work = Callable[[Bench], Iterator[Try]]


@dataclass(frozen=True)
class Drill:
    """One kind of fault.

    Attributes:
        name: ``group/name``.
        what: what is done, in a sentence.
        survived: what counts as survived, in a sentence.
        work: brings the fault about, and yields what came of each try.
        whole: how many tries there are; ``None``: one of each case.
        quick: how many of them ``--quick`` has; 0: none.
    """

    name: str
    what: str
    survived: str
    work: Work
    whole: int | None = None
    quick: int = 1

    @property
    def group(self) -> str:
        """The module that it is in."""
        return self.name.partition("/")[0]


_drills: dict[str, Drill] = {}


def drill(name: str, what: str, survived: str, *, whole: int | None = None, quick: int = 1) -> Callable[[Work], Work]:
    """Return a decorator that registers a function as the drill of a name; see :class:`Drill`.

    Raises:
        ValueError: the name is taken, or its group is none.
    """

    def register(work: Work) -> Work:
        if name in _drills or name.partition("/")[0] not in GROUPS:
            raise ValueError(f"the drill {name} is there already, or its group is none of {', '.join(GROUPS)}")
        _drills[name] = Drill(name, what, survived, work, whole, quick)
        return work

    return register


def drills() -> tuple[Drill, ...]:
    """Return all drills in the order in which they run."""
    for group in GROUPS:
        importlib.import_module(f"jumar.drills.faults.{group}")
    return tuple(sorted(_drills.values(), key=lambda each: GROUPS.index(each.group)))


def select(every: Sequence[Drill], names: Iterable[str], quick: bool = False) -> list[Drill]:
    """Return the drills that the names stand for, each once and in their order; all of them without a name.

    Args:
        every: all drills.
        names: of drills or groups, as typed.
        quick: leave out those that ``--quick`` does not have.

    Raises:
        UsageError: a name stands for none; the message has the nearest. Or ``--quick`` leaves out all of them.
    """
    known = [each.name for each in every]
    wanted: set[str] = set()
    for name in names:
        typed = name.rstrip("/")
        found = [each for each in known if each == typed or each.startswith(typed + "/")]
        if not found:
            raise unknown("drill", name, [*dict.fromkeys(each.group for each in every), *known])
        wanted.update(found)
    chosen = [each for each in every if not wanted or each.name in wanted]
    some = [each for each in chosen if each.quick or not quick]
    if not some:
        raise UsageError(f"--quick leaves out {chosen[0].name}; run it without --quick.")
    return some
