"""TOML: reading a file that anybody may have written, and writing values so that they are read back as they are.

The standard library reads TOML and does not write it. :func:`value` writes what Jumar keeps in such files: numbers, texts,
flags, lists and tables of these.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jumar.errors import DamagedFile, UsageError, nearest
from jumar.runs.entries import PathLike
from jumar.runs.files import read_bytes
from jumar.text import printable

LARGEST = 2**16
"""Bytes. A file with every setting and its help has a tenth of that; some texts take time that grows with its square."""
MOST_DOTS = 200
"""In a line: reading a dotted key takes time that grows with the square of its parts."""
LARGEST_WHOLE = 2**63
"""Whole numbers of TOML have 64 bits."""
MOST_CANDIDATES = 20
"""How many lines are tried as the one that a key stands in."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


@dataclass(frozen=True)
class Document:
    """A TOML file that was read.

    Attributes:
        path: as it was given.
        values: what it says.
        text: the file, decoded.
    """

    path: str
    values: dict[str, Any]
    text: str = ""

    def line_of(self, name: str) -> int | None:
        """Return the number of the line in which a key of the outermost table stands, the first being 1, if it can be found."""
        lines = [line + "\n" for line in self.text.split("\n")]
        quoted = re.escape(name)
        begins = re.compile(rf"""\s*(\[*)\s*(?:{quoted}|"{quoted}"|'{quoted}')\s*[=.\]]""")
        found = [(i, match[1]) for i, line in enumerate(lines) if (match := begins.match(line))]
        for i, header in found[:MOST_CANDIDATES]:
            before = "".join(lines[:i])
            try:
                # It might be inside of a text of several lines, or in an inner table.
                after = before + (lines[i] if header else f"{key(name)} = 0\n")
                if name not in tomllib.loads(before) and name in tomllib.loads(after):
                    return i + 1
            except (ValueError, RecursionError):
                continue
        return None

    def place(self, name: str) -> str:
        """Return where a key stands, as ``FILE, line 3``; the file alone if the line cannot be found."""
        line = self.line_of(name)
        return self.path + (f", line {line}" if line else "")


def read(path: PathLike, what: str) -> Document:
    """Read a TOML file, which is to be ``what`` (a noun for messages). The path may be a link; what it leads to is a file.

    Raises:
        UsageError: it is not there, is no plain file, cannot be read, is too long, is not UTF-8 or is not TOML; or a whole
            number in it has more than 64 bits. The message has the line where that is known.
    """
    shown = os.fspath(path)
    text = (
        _decoded(_content(Path(shown), what), shown) + "\n"
    )  # then the reader knows the line of a fault in the last one
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(shown, str(error)) from None
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else "a number in it is too long"
        raise UsageError(f"{shown} cannot be read: {why}.") from None
    document = Document(shown, values, text)
    for name, each in values.items():
        if _has_too_large(each):
            raise UsageError(f"{document.place(name)}: {name} has a whole number with more than 64 bits.")
    return document


def _content(path: Path, what: str) -> bytes:
    if not path.exists():
        wrong = f"there is no {what} {path}" if not os.path.islink(path) else f"{path} is a link that leads nowhere"
        raise UsageError(wrong + _suggestion(path))
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe, a socket or a device"
        raise UsageError(f"{path} is {kind}; a {what} is a plain file.")
    if (size := path.stat().st_size) > LARGEST:
        raise UsageError(f"{path} has {size:,} bytes; a {what} has at most {LARGEST:,}.")
    try:
        return read_bytes(os.path.realpath(path), what, LARGEST)
    except DamagedFile as error:
        raise UsageError(str(error)) from None


def _suggestion(path: Path) -> str:
    try:
        names = [name for name in os.listdir(path.parent) if name.endswith(".toml")]
    except OSError:
        names = []
    close = [str(path.parent / name) for name in nearest(path.name, names)]
    return f"; did you mean {' or '.join(close)}?" if close else "."


def _decoded(data: bytes, shown: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        where = "it is UTF-16" if wide else f"byte {error.start + 1} is none"
        raise UsageError(f"{shown} is not text in UTF-8 ({where}); save it as UTF-8.") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MOST_DOTS and not line.lstrip().startswith("#"):
            raise UsageError(f"{shown}, line {number}: there are more than {MOST_DOTS} dots in this line.")
    return text


def _not_toml(shown: str, said: str) -> UsageError:
    place = _PLACE.search(said)
    where = shown
    if place is not None:
        said = said[: place.start()]
        where += f", line {place[1]}, column {place[2]}" if place[1] else ", at its end"
    hint = "; texts stand in quotes" if said == "Invalid value" else ""
    return UsageError(f"{where}: this is not TOML: {said[:1].lower()}{said[1:200]}{hint}.")


def _has_too_large(value: Any) -> bool:
    """Whether a whole number in a value does not fit into 64 bits; inner values are looked at one after another."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, int) and not -LARGEST_WHOLE <= each < LARGEST_WHOLE:
            return True
        if isinstance(each, Mapping):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return False


def value(data: Any) -> str:
    """Return a value as TOML has it, in one line: ``tomllib`` reads it back equal, and of the same type.

    Tuples become lists. NaN and the infinities are numbers of TOML.

    Raises:
        TypeError: it is, or holds, something else than a number, text, flag, list or table with texts as keys.
        ValueError: a whole number has more than 64 bits, or a text has half of a surrogate pair, which UTF-8 cannot hold.
    """
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, int):
        if not -LARGEST_WHOLE <= data < LARGEST_WHOLE:
            raise ValueError("a whole number in TOML has at most 64 bits")
        return str(int(data))
    if isinstance(data, float):
        return repr(float(data))
    if isinstance(data, str):
        return _text(data)
    if isinstance(data, Mapping):
        return "{" + ", ".join(f"{key(name)} = {value(each)}" for name, each in data.items()) + "}"
    if isinstance(data, Sequence) and not isinstance(data, (bytes, bytearray)):
        return "[" + ", ".join(map(value, data)) + "]"
    raise TypeError(f"a {type(data).__name__} is not data that TOML can hold: {data!r:.100}")


def key(name: str) -> str:
    """Return the name of an entry as TOML has it: in quotes where it must be. Raises as :func:`value`."""
    if not isinstance(name, str):
        raise TypeError(f"a key in TOML is a text, not {name!r:.100}")
    return name if _BARE.fullmatch(name) else _text(name)


def comment(text: str) -> str:
    """Return one line of a comment; what would end the line or steer a terminal is written out."""
    shown = printable(text).replace("\n", " ").replace("\t", " ")
    return f"# {shown.encode('utf-8', 'backslashreplace').decode()}".rstrip()


def in_ascii(text: str) -> str:
    """Return what was written here without a character beyond ASCII, for a stream that is not in UTF-8: it means the same."""
    return "".join(x if x.isascii() else _code(x) for x in text)


def _text(text: str) -> str:
    text.encode("utf-8")  # half of a surrogate pair is refused here, as a ValueError
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    # What cannot be printed would be allowed, but might steer a terminal.
    return character if character == " " or character.isprintable() else _code(character)


def _code(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


__all__ = ["Document", "comment", "in_ascii", "key", "read", "value"]
