"""Files that are the old one or the new one and never half, JSON that knows when it was changed, arrays by name.

Three layers, each usable alone: ``write_atomically`` for bytes; ``write_json`` and ``read_json`` for data that carries
a SHA-256 of itself; ``tree_to_arrays`` and ``pack_arrays`` (with their inverses) for pytrees of arrays, kept as
safetensors. Reading any of them runs no code and imports nothing that a file names.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jumar.errors import DamagedFile, NewerFile, UsageError
from jumar.fields import Reader, record, text
from jumar.runs.entries import PathLike, open_plain, temporary_beside

Buffer = bytes | memoryview

FORMAT = 3
"""The version of every JSON file written; files of a newer version are refused."""

LARGEST_JSON = 16 * 2**20
"""Bytes. The largest file of ours is the checkpoint of 10,000 seeds, with 4 MiB; then come spaces with a bound for each of
their elements, some 80 bytes an element. A longer file is foreign: to read this much takes up to half a gigabyte, and some
two seconds."""

DEEPEST_JSON = 200
"""Levels. A space, the deepest that we write, may be nested 32 deep, with three levels of JSON each, and an array in it."""

RESERVED = ("format", "what", "arrays", "digest")
CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP)
"""What some network file systems answer: they cannot flush this, which is no fault."""
FLOAT_TAG = "$float"
DIGEST_AT_END = re.compile(rb',\n  "digest": "([0-9a-f]{64})"\n\}\n\Z')
NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


# Bytes


def write_atomically(path: PathLike, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader finds the old content or the new one, whenever the machine stops.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and are renamed into place; the
    folder is flushed too.

    Raises:
        OSError: no space, no permission, and the like. The old file is unharmed (or the new one is complete, if only
            flushing the folder failed), and the temporary one is removed.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    with naming(path):
        try:
            write_flushed(temporary, data)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        flush_folder(path.parent)


def write_new(path: PathLike, data: bytes) -> None:
    """Write ``data`` to a new file, which appears whole or not at all.

    Raises:
        FileExistsError: there is something at ``path``, which is unharmed.
        OSError: no space, no permission, and the like; there is no file then.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    with naming(path):
        try:
            write_flushed(temporary, data)
            _rename_to_new(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        flush_folder(path.parent)


def _rename_to_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike a rename, it replaces nothing
    except FileExistsError:
        raise
    except OSError:  # a file system without a second name for a file
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)


def write_flushed(path: PathLike, data: bytes) -> None:
    """Write ``data`` to a file that does not exist yet, and flush it to the disk. Raises ``OSError``."""
    write_pieces_flushed(path, (data,))


def write_pieces_flushed(path: PathLike, pieces: Iterable[Buffer]) -> None:
    """Write the pieces one after another to a file that does not exist yet, and flush it. Raises ``OSError``."""
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for piece in pieces:
                write_all(descriptor, piece)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Let an ``OSError`` of the block name the file ``path``: what fails in writing or flushing names none."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def write_all(descriptor: int, data: Buffer) -> None:
    """Write all of ``data``: one ``os.write`` may take only a part of it. Raises ``OSError``."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def flush_folder(folder: PathLike) -> None:
    """Flush the names in ``folder`` to the disk, so that a rename survives a power loss. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # The rename is still all or nothing there.
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)


def read_bytes(path: PathLike, what: str, largest: int | None = None) -> bytes:
    """Return the content of the plain file ``path``, which is to be ``what`` (a noun for the message).

    Raises:
        DamagedFile: it is missing, is no plain file (a link, a folder, a pipe, a device), cannot be read, or is longer
            than ``largest`` bytes.
    """
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if largest is not None and size > largest:
                raise DamagedFile(f"{path} is not a {what} that Jumar wrote: it has {size} bytes.")
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedFile(f"{path} is missing; a {what} is expected there.") from None
    except OSError as error:
        raise DamagedFile(f"{path} cannot be read ({error.strerror}).") from None


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


# JSON


def write_json(path: PathLike, what: str, data: Mapping[str, Any], arrays: Mapping[str, str] | None = None) -> None:
    """Write ``data`` atomically as indented JSON, with the entries ``format``, ``what`` and ``digest`` around it.

    ``what`` is the kind of file, a noun such as ``policy``. ``digest`` is the SHA-256 of the text without it.
    ``arrays`` gives the SHA-256 of each array file that the data describe, by name, and is kept under that key.
    Entries keep their order. NumPy and JAX values become plain numbers and lists; NaN and the infinities, which JSON
    lacks, become ``{"$float": "nan"}``, ``"inf"`` or ``"-inf"``.

    Raises:
        ValueError: an entry has a reserved name.
        UsageError: the text is longer than ``LARGEST_JSON``.
        TypeError: a value is not data.
        OSError: the file cannot be written; the old one is unharmed.
    """
    write_atomically(path, encode_json(what, data, arrays))


def encode_json(what: str, data: Mapping[str, Any], arrays: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes that ``write_json`` writes, and raise what it raises except ``OSError``."""
    taken = [name for name in RESERVED if name in data]
    if taken:
        raise ValueError(f"the entry name {taken[0]!r} is reserved")
    content = {"format": FORMAT, "what": what, **plain(data, _tagged)}
    if arrays is not None:
        content["arrays"] = dict(arrays)
    text = _canonical({**content, "digest": sha256(_canonical(content))})
    if len(text) > LARGEST_JSON:
        raise UsageError(
            f"what describes this {what} takes {len(text):,} bytes, and at most {LARGEST_JSON:,} can be read back; a space "
            "whose elements share their bounds takes less."
        )
    return text


def read_json(path: PathLike, what: str) -> dict[str, Any]:
    """Return the data (and ``arrays``, if there are any) that ``write_json`` wrote to ``path`` as ``what``.

    Any change of the file, of a single byte of white space too, is noticed. The digest is no secret: what is in the
    file may still be anything, but is nested at most ``DEEPEST_JSON`` deep and has no NaN (``jumar.fields`` reads it).

    Raises:
        DamagedFile: the file is missing, foreign (a pickle, an archive, a web page...), changed, too long or too deep, of
            another kind, or from a newer version.
    """
    return decode_json(read_bytes(path, what, LARGEST_JSON), path, what)


def decode_json(text: bytes, path: PathLike, what: str) -> dict[str, Any]:
    """Return the data in ``text``, which was read from ``path``. Raises ``DamagedFile`` as ``read_json`` does."""
    content = _parsed(text)
    version = content.get("format")
    if type(version) is not int or version < 1:
        raise DamagedFile(f"{path} is not a {what} that Jumar wrote; restore it from a copy.")
    if version > FORMAT:
        raise NewerFile(
            f"{path} was written by a newer Jumar (format {version}, this one reads up to {FORMAT}); "
            "update Jumar to read it."
        )
    if not _is_as_digested(text):
        raise DamagedFile(f"{path} was changed after Jumar wrote it: it does not match its digest. Restore a copy.")
    if content.get("what") != what:
        raise DamagedFile(f"{path} is not a {what}: Jumar wrote it as a {content.get('what')}. Restore a copy.")
    if _is_deeper(content, DEEPEST_JSON):
        raise DamagedFile(f"{path} is damaged: it is nested more than {DEEPEST_JSON} deep. Restore a copy.")
    return {name: value for name, value in content.items() if name not in ("format", "what", "digest")}


def arrays_named(name: str) -> Reader[dict[str, str]]:
    """Return a reader of the entry ``arrays``, which gives the SHA-256 of the array file of that name."""
    return record(**{name: text("[0-9a-f]{64}", "a SHA-256 in hexadecimal")})


def _is_as_digested(text: bytes) -> bool:
    """Whether ``text`` is as ``encode_json`` makes it: it ends with the digest of what it is without it."""
    found = DIGEST_AT_END.search(text)
    return found is not None and sha256(text[: found.start()] + b"\n}\n") == found[1].decode()


def _parsed(text: bytes) -> dict[str, Any]:
    """Return the JSON object in ``text``; an empty one if there is none."""
    try:
        content = json.loads(text.decode("ascii"), object_hook=_untagged, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def plain(value: Any, non_finite: Callable[[float], Any]) -> Any:
    """Return ``value`` as dicts, lists, texts and numbers only; ``non_finite`` replaces NaN and the infinities.

    Raises:
        TypeError: something in it is not data, or a dict has a key that is no text.
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else non_finite(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        if foreign := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"a key in JSON is a text, not {foreign[0]!r}")
        return {key: plain(entry, non_finite) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, non_finite) for entry in value]
    if hasattr(value, "tolist"):  # NumPy and JAX scalars and arrays
        return plain(value.tolist(), non_finite)
    raise TypeError(f"a {type(value).__name__} is not data that JSON can hold: {value!r}")


def _canonical(content: Any) -> bytes:
    # Pure ASCII: any text then survives, even a file name that is not valid Unicode.
    return (json.dumps(content, indent=2, ensure_ascii=True) + "\n").encode("ascii")


def _tagged(value: float) -> dict[str, str]:
    return {FLOAT_TAG: repr(float(value))}


def _untagged(value: dict[str, Any]) -> Any:
    """Return the float that a tag stands for; any other object as it is."""
    if len(value) == 1 and isinstance(tag := value.get(FLOAT_TAG), str):
        return NON_FINITE.get(tag, value)
    return value


def _is_deeper(content: Any, levels: int) -> bool:
    """Whether lists and objects are nested more than so many levels deep. Takes one level at a time: nothing recurs."""
    found = [content]
    for _ in range(levels):
        inner = (value.values() if isinstance(value, dict) else value for value in found)
        found = [value for values in inner for value in values if isinstance(value, (dict, list))]
        if not found:
            return False
    return True


# Arrays


def tree_to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a pytree as NumPy arrays, by a name such as ``optimiser/0/mu/weights``.

    A name joins the dict keys, field names and sequence indexes that lead to the leaf by ``/``; a tree that is one
    leaf has the name ``array``. ``None`` is no leaf and vanishes. Shapes (``()`` too) and types stay.

    Raises:
        ValueError: two leaves get the same name (a dict key with a ``/`` in it).
        TypeError: a leaf is not an array of numbers.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in _named_leaves(tree):
        if name in arrays:
            raise ValueError(f"two arrays of the tree have the name {name!r}")
        array = np.asarray(leaf)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} is not an array of numbers: {leaf!r}")
        arrays[name] = array
    return arrays


def arrays_to_tree(template: Any, arrays: Mapping[str, np.ndarray], path: PathLike = "the file") -> Any:
    """Return a tree of the structure of ``template`` with the leaves of ``arrays``: the inverse of ``tree_to_arrays``.

    The template's leaves need only ``shape`` and ``dtype`` (``jax.ShapeDtypeStruct`` will do). A leaf comes back as a
    JAX array where the template has one, else as a NumPy array. ``path`` is where the arrays come from, for messages.

    Raises:
        DamagedFile: an array is missing, is one too many, or differs in shape or type; the message shows both.
    """
    import jax

    named = _named_leaves(template)
    missing = [name for name, _ in named if name not in arrays]
    extra = sorted(set(arrays) - {name for name, _ in named})
    if missing or extra:
        faults = [f"{name!r} is missing" for name in missing[:3]] + [
            f"{name!r:.100} is not expected" for name in extra[:3]
        ]
        raise DamagedFile(f"the arrays in {path} are not those of this setting: {'; '.join(faults)}.")
    leaves = [_checked_leaf(name, leaf, arrays[name], path) for name, leaf in named]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(template), leaves)


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the arrays in the safetensors format. The bytes depend on names, shapes, types and values alone."""
    import safetensors.numpy

    return safetensors.numpy.save({name: _row_major(arrays[name]) for name in sorted(arrays)})


def unpack_arrays(data: bytes, path: PathLike) -> dict[str, np.ndarray]:
    """Return the arrays in safetensors ``data``, which was read from ``path``. Raises ``DamagedFile``."""
    import safetensors
    import safetensors.numpy

    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        raise DamagedFile(f"{path} is not an array file (safetensors) that Jumar wrote; restore a copy.") from None


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    import jax

    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [("/".join(_part(key) for key in keys) or "array", leaf) for keys, leaf in leaves]


def _part(key: Any) -> str:
    """Return the name of one step in a pytree: a field's name, a dict's key or an index."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"a pytree with the unknown key {key!r}")


def _checked_leaf(name: str, template: Any, array: np.ndarray, path: PathLike) -> Any:
    import jax

    expected = template if hasattr(template, "dtype") else np.asarray(template)
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise DamagedFile(
            f"the array {name!r} in {path} is {array.dtype}{list(array.shape)}; "
            f"{np.dtype(expected.dtype)}{list(expected.shape)} is expected here."
        )
    # A copy of its own: JAX may otherwise use the memory of the bytes that were read.
    return jax.numpy.array(array, copy=True) if isinstance(template, jax.Array) else array


def _row_major(array: np.ndarray) -> np.ndarray:
    # np.ascontiguousarray would make a 0-d array 1-d.
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
