"""One try after another: change a file of the corpus, read it, say what went wrong, and put it back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from jumar.drills.fuzzing.targets import TARGETS, Read, Target
from jumar.errors import JumarError

LONGEST_READING = 10.0
"""Seconds. The longest file that is read at all takes some two."""
LONGEST_SENTENCE = 4_000
"""Characters; a message quotes at most a few hundred of each of several files."""
Guard = Callable[[], AbstractContextManager[list[str]]]
"""Makes a block that collects what must not be done in it."""


class Attempts:
    """Tries by number, so that each can be done again alone."""

    def __init__(
        self,
        corpus: Path,
        seed: int,
        names: Iterable[str] = (),
        *,
        crashing: bool = True,
        every: int = 1,
        guard: Guard | None = None,
    ) -> None:
        """Read the sound files, to know what they give.

        Args:
            corpus: the folder of :func:`jumar.drills.fuzzing.corpus.make_corpus`.
            seed: of all tries.
            names: of targets; none: all that the corpus has.
            crashing: whether those may be tried whose reader may take the process along.
            every: in one of so many tries all readers of a file read it, in the others the first one alone.
            guard: watches each reading.
        """
        self._corpus, self._seed, self._every = corpus, seed, every
        self._guard = guard or (lambda: nullcontext([]))
        wanted = set(names)
        self._targets = [
            target
            for target in TARGETS
            if target.path(corpus) is not None
            and (not wanted or target.name in wanted)
            and (crashing or not target.crashes)
        ]
        self._weights = [target.weight for target in self._targets]
        self._sound = {path: path.read_bytes() for path in _files(corpus)}
        self._expected = {
            (target.name, i): read(corpus) for target in self._targets for i, read in enumerate(target.readers)
        }
        self._put_back(corpus)

    def names(self) -> list[str]:
        """Return the names of the targets that there are."""
        return [target.name for target in self._targets]

    def drawn(self, number: int) -> tuple[Target, random.Random]:
        """Return which file is changed in a try, and what draws the change."""
        chance = random.Random(f"{self._seed} {number}")
        return chance.choices(self._targets, self._weights)[0], chance

    def attempt(self, number: int) -> tuple[str, str | None]:
        """Do a try; return what it was, and what went wrong if something did."""
        target, chance = self.drawn(number)
        path = target.path(self._corpus)
        assert path is not None
        folder = path.parent if path.parent == self._corpus else self._corpus / path.relative_to(self._corpus).parts[0]
        try:
            must_notice = target.mutate(path, chance)
            changed = {each: each.read_bytes() for each in _files(folder)}
            readers = target.readers if number % self._every == 0 else target.readers[:1]
            for i, read in enumerate(readers):
                wrong = self._read(target, i, read, must_notice)
                if wrong is None and not target.writes and {x: x.read_bytes() for x in _files(folder)} != changed:
                    wrong = "reading changed a file"
                if wrong is not None:
                    return target.name, f"{_name_of(read)}: {wrong}"
            return target.name, None
        finally:
            self._put_back(folder)

    def _read(self, target: Target, place: int, read: Read, must_notice: bool) -> str | None:
        start = time.monotonic()
        with self._guard() as done:
            try:
                content = read(self._corpus)
            except JumarError as error:
                wrong = _wrong_words(str(error))
            except Exception as error:
                wrong = f"{type(error).__name__}: {error!s:.200} ({_raised_at(error)})"
            else:
                noticed = not must_notice or content == self._expected[target.name, place]
                wrong = None if noticed else "a changed file was read as if it were sound"
        if wrong is None and done:
            wrong = f"reading did what it must not: {', '.join(done[:3])}"
        if wrong is None and (seconds := time.monotonic() - start) > LONGEST_READING:
            wrong = f"reading took {seconds:.0f} s"
        return wrong

    def _put_back(self, folder: Path) -> None:
        for path in _files(folder):
            if path not in self._sound:
                path.unlink()
        for path, data in self._sound.items():
            if path.is_relative_to(folder) and (not path.exists() or path.read_bytes() != data):
                path.write_bytes(data)


def _files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _wrong_words(words: str) -> str | None:
    if not words or len(words) > LONGEST_SENTENCE:
        return f"a message of {len(words)} characters"
    if not all(each.isprintable() or each in "\n\t" for each in words):
        return f"a message that steers a terminal: {words!r:.200}"
    return None


def _name_of(read: Read) -> str:
    return read.__qualname__.split(".")[0].removeprefix("_")


def _raised_at(error: BaseException) -> str:
    """Return where an exception was raised, the last frame in Jumar first."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/jumar/" in frame.filename and "/drills/" not in frame.filename]
    frame = (ours or list(frames))[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
