"""The errors that Jumar raises for its users' mistakes and for what goes wrong outside of it.

Every message is one or two sentences: what is wrong, the value, and what would be right. The command line prints the
message alone, without a traceback, and exits with the class's ``exit_code``.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Mapping

from jumar.text import printable, shortened

LONGEST = 3_000
"""Characters of a message; what is longer quotes a foreign file, and loses its middle."""
LONGEST_NAME = 100
"""Characters of an unknown name that a message shows: no known one is as long."""


class JumarError(Exception):
    """Base of all errors that Jumar raises on purpose; its words are printable and not too many, whatever they quote."""

    exit_code = 1

    def __init__(self, *words: object) -> None:
        super().__init__(*(shortened(printable(word), LONGEST) if isinstance(word, str) else word for word in words))


class UsageError(JumarError, ValueError):
    """The command, a setting, a name or a path is wrong (exit code 2)."""

    exit_code = 2


class UnsupportedEnvironment(UsageError):
    """An environment cannot be used as it is: its spaces, what it returns, or its own code that raises (exit code 2).

    What was typed is right: not a name, an argument or a package that is missing.
    """


class EnvironmentFault(JumarError, RuntimeError):
    """An environment raised, hung, died, or returned something that is no experience (exit code 1)."""


class TrainingFailed(JumarError, RuntimeError):
    """Training cannot go on: the parameters or their gradient are not finite (exit code 1)."""


class DamagedFile(JumarError, RuntimeError):
    """A file is not what Jumar wrote: changed, cut short, foreign, or from a newer version (exit code 1)."""


class NewerFile(DamagedFile):
    """A file is from a newer version of Jumar: whole, and not for this one to read or to replace (exit code 1)."""


def explain_system_error(error: OSError) -> str:
    """Return a sentence for what the operating system refused: what, the file if it is known, and what would help."""
    remedies = {
        errno.ENOSPC: "free some space there, or choose another place",
        errno.EDQUOT: "free some space there, or choose another place",
        errno.EMFILE: "allow more, such as by `ulimit -n 4096`, or use fewer environments and workers",
        errno.ENFILE: "close other programs, or allow more for the whole system",
        errno.EROFS: "choose another place",
    }
    number = error.errno or 0
    words = error.strerror or str(error)
    words += f": {error.filename}" if error.filename else ""
    # Without a name it may be a stream, where no space can be freed.
    known = number in remedies and (error.filename or number in (errno.EMFILE, errno.ENFILE))
    return words + (f"; {remedies[number]}." if known else ".")


def nearest(name: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> list[str]:
    """Return up to three of the ``known`` names that ``name`` most likely stands for, best first.

    Those that begin with it, the shortest first, come before those that are spelt like it. ``aliases`` maps what other
    libraries call a thing to its name here; an exact alias is the only answer.
    """
    if aliases and name in aliases:
        return [aliases[name]]
    typed, by_lower = name.lower(), {candidate.lower(): candidate for candidate in known}
    longer = [candidate for candidate in by_lower if candidate.startswith(typed) and len(typed.strip("-")) > 2]
    similar = difflib.get_close_matches(typed, by_lower, n=3, cutoff=0.6)
    return [by_lower[match] for match in dict.fromkeys(sorted(longer, key=len) + similar)][:3]


def unknown(
    kind: str, name: str, known: Iterable[str], aliases: Mapping[str, str] | None = None, listed_by: str = ""
) -> UsageError:
    """Build the error for an unknown ``name`` of some ``kind``, with the nearest right names or all of a short list.

    Where there is neither, it names the command that lists all, ``listed_by``.
    """
    known = list(known)
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
    guesses = nearest(name, known, aliases)
    if guesses:
        hint = f"did you mean {' or '.join(guesses)}?"
    elif 0 < len(known) <= 12:
        hint = f"known: {', '.join(known)}."
    else:
        hint = f"{listed_by} shows all." if listed_by else ""
    return UsageError(f"unknown {kind} {name!r}" + (f"; {hint}" if hint else "."))
