"""The films in a run directory: small ones become a part of the page, others are named."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from jumar.errors import DamagedFile
from jumar.runs.entries import is_folder, open_plain
from jumar.web.watched import WatchedRun

FOLDER = "videos"
KINDS = {".mp4": "video/mp4", ".gif": "image/gif"}
LARGEST = 8 * 2**20
"""Bytes of a film that is put into the page."""
LARGEST_TOGETHER = 24 * 2**20
MOST = 24
"""How many films of all runs are shown."""


@dataclass(frozen=True)
class Video:
    """A film."""

    run: WatchedRun
    path: Path
    kind: str
    size: int
    data: str | None
    """As a ``data:`` address; ``None`` where it is too large to be a part of the page."""

    def address_from(self, folder: Path | None) -> str | None:
        """Return its address relative to the page's folder; ``None`` where it has none."""
        if folder is None:
            return None
        relative = os.path.relpath(self.path.absolute(), folder.absolute())
        return quote(relative, safe="/", errors="surrogateescape")


def find_videos(runs: Sequence[WatchedRun]) -> tuple[list[Video], list[str]]:
    """Return the films of some runs, and a sentence for each that cannot be read."""
    found: list[Video] = []
    troubles: list[str] = []
    left = LARGEST_TOGETHER
    for run in runs:
        folder = run.directory.path / FOLDER
        try:
            names = sorted(os.listdir(folder)) if is_folder(folder) else []
        except (OSError, DamagedFile) as error:
            troubles.append(_words(folder, error))
            continue
        for name in names:
            kind = KINDS.get(Path(name).suffix.lower())
            if kind is None or len(found) >= MOST:
                continue
            try:
                video = _read(run, folder / name, kind, min(left, LARGEST))
            except (OSError, DamagedFile) as error:
                troubles.append(_words(folder / name, error))
                continue
            left -= video.size if video.data else 0
            found.append(video)
    return found, troubles


def _read(run: WatchedRun, path: Path, kind: str, largest: int) -> Video:
    descriptor = open_plain(path)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    size = status.st_size
    return Video(run, path, kind, size, _address(path, kind, status.st_mtime_ns, size) if size <= largest else None)


@lru_cache(maxsize=MOST)
def _address(path: Path, kind: str, changed: int, size: int) -> str:
    """Return a film as an address that holds it; a page that is served asks again and again."""
    with os.fdopen(open_plain(path), "rb") as file:
        content = file.read(size)
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _words(path: Path, error: OSError | DamagedFile) -> str:
    return str(error) if isinstance(error, DamagedFile) else f"{path} cannot be read ({error.strerror})."
