"""Frames become a file: MP4 (H.264) by ffmpeg, GIF by Pillow. Frames are written as they come, and never kept.

A film is encoded in a temporary folder and put in its place when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np

from jumar.errors import JumarError, UsageError
from jumar.runs.files import write_new

ENDINGS = (".mp4", ".gif")
PATIENCE = 120.0
"""Seconds that ffmpeg may take for what is left of a film once all frames are there."""
SHORTEST_DELAY = 2
"""Hundredths of a second: browsers show a picture of a GIF with less for ten times as long."""


class Encoder(Protocol):
    """Takes the frames of a film one by one."""

    def add(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 ``[height, width, 3]``; all have the same size.

        Raises:
            JumarError: it cannot be encoded.
        """
        ...

    def finish(self) -> None:
        """Write what is left. Raises ``JumarError``."""
        ...

    def stop(self) -> None:
        """Let go of everything; the film is not wanted."""
        ...


class Film:
    """A file that is being made: a context in which frames are added; at its end the file is there, or nothing is.

    Args:
        path: the new file, which ends in ``.mp4`` or ``.gif``.
        rate: frames per second.

    Raises:
        UsageError: no encoder is installed.
        JumarError: the file cannot be written. (Both on entering, adding or leaving.)
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self.frames = 0
        self._ffmpeg = find_ffmpeg() if path.suffix.lower() == ".mp4" else ""
        self._encoder: Encoder | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="jumar-", ignore_cleanup_errors=True)
        self._made = Path(self._folder.name) / f"film{path.suffix.lower()}"

    def __enter__(self) -> Film:
        return self

    def add(self, frame: np.ndarray) -> None:
        """Add a frame; the first one decides the size."""
        if self._encoder is None:
            size = frame.shape[1], frame.shape[0]
            if self._ffmpeg:
                self._encoder = Mp4(self._made, self._ffmpeg, size, self.rate)
            else:
                self._encoder = Gif(self._made, self.rate)
        self._encoder.add(frame)
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._encoder is not None:
                self._encoder.finish()
                _put_in_place(self._made, self.path)
        finally:
            if self._encoder is not None:
                self._encoder.stop()
            self._folder.cleanup()


def _put_in_place(made: Path, path: Path) -> None:
    try:
        write_new(path, made.read_bytes())
    except FileExistsError:
        raise UsageError(
            f"{path} has appeared in the meantime, and is not overwritten; give another name by --out."
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> JumarError:
    return JumarError(f"the film cannot be written to {path}: {error.strerror or error}.")


def find_ffmpeg() -> str:
    """Return the path of an ffmpeg: that of imageio-ffmpeg, else one of the system.

    Raises:
        UsageError: there is none.
    """
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        with contextlib.suppress(RuntimeError):
            return imageio_ffmpeg.get_ffmpeg_exe()
    if found := shutil.which("ffmpeg"):
        return found
    raise UsageError(
        "an MP4 is encoded by ffmpeg, which is not installed: pip install 'jumar[video]'. A GIF needs none: --out FILE.gif."
    )


class Mp4:
    """H.264 in an MP4 that browsers play: 8 bits, 4:2:0, the index at the front."""

    def __init__(self, path: Path, ffmpeg: str, size: tuple[int, int], rate: float) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in stop)
        colours = "bt709"  # said in the file, or players guess by the picture's size
        command = [
            *(ffmpeg, "-loglevel", "error", "-nostdin", "-f", "rawvideo", "-pix_fmt", "rgb24"),
            *("-s", f"{size[0]}x{size[1]}", "-framerate", f"{rate:g}", "-i", "pipe:0", "-an"),
            *("-vf", f"scale=out_color_matrix={colours}:out_range=tv", "-c:v", "libx264", "-crf", "20"),
            *("-pix_fmt", "yuv420p", "-colorspace", colours, "-color_primaries", colours, "-color_trc", colours),
            *("-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact", str(path)),
        ]
        # A group of its own: Ctrl-C is for Jumar, which decides what becomes of the film.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors, process_group=0
        )

    def add(self, frame: np.ndarray) -> None:
        """Add a frame."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frame))
        except OSError as error:
            raise self._failure() from error

    def finish(self) -> None:
        """Wait until all is written."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            code = self._process.wait(PATIENCE)
        except OSError as error:
            raise self._failure() from error
        except subprocess.TimeoutExpired:
            raise JumarError(f"ffmpeg did not end within {PATIENCE:g} s; no film was written.") from None
        if code != 0:
            raise self._failure()

    def stop(self) -> None:
        """End ffmpeg, if it has not ended."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._errors.close()

    def _failure(self) -> JumarError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._errors.seek(0)
        said = self._errors.read(100_000).decode(errors="replace").strip()
        code = self._process.returncode
        # Where what it says cannot be written either, its exit code still tells.
        if "No space left" in said or code == 256 - errno.ENOSPC:
            return JumarError(
                f"the film cannot be encoded: no space is left in {tempfile.gettempdir()}; free some there, or set TMPDIR to "
                "another folder."
            )
        if "libx264" in said and "nknown encoder" in said:
            return UsageError(
                "the ffmpeg of this system has no encoder libx264: pip install 'jumar[video]' brings one."
            )
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        return JumarError(f"the film cannot be encoded: ffmpeg {how}" + (f": {said.splitlines()[-1]}" if said else "."))


class Gif:
    """A GIF that repeats for ever. Of each frame only what has changed is kept, with 255 colours of its own."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise _unwritable(path, error) from error
        self._frames = 0
        self._waiting: np.ndarray | None = None
        """The newest frame that will be shown; how long is known when the next one comes."""
        self._since = 0
        self._left_out: np.ndarray | None = None
        """The newest frame, if it came too soon to be shown."""
        self._shown: np.ndarray | None = None

    def _time(self, frame: int) -> int:
        """Return when a frame is due, in hundredths of a second."""
        return round(100.0 * frame / self._rate)

    def add(self, frame: np.ndarray) -> None:
        """Add a frame; where frames are too quick for a GIF, some are left out."""
        due = self._time(self._frames)
        if self._waiting is not None and due - self._since < SHORTEST_DELAY:
            self._left_out = frame
        else:
            if self._waiting is not None:
                self._write(self._waiting, due - self._since)
            self._waiting, self._since, self._left_out = frame, due, None
        self._frames += 1

    def finish(self) -> None:
        """Write the last frame, which is shown however soon it came, and the end."""
        if self._waiting is not None and self._left_out is not None:
            self._write(self._waiting, SHORTEST_DELAY)
            self._waiting, self._since = self._left_out, self._since + SHORTEST_DELAY
        if self._waiting is not None:
            self._write(self._waiting, max(SHORTEST_DELAY, self._time(self._frames) - self._since))
        self._store([b";"])
        try:
            self._file.close()
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def stop(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, frame: np.ndarray, hundredths: int) -> None:
        from PIL import GifImagePlugin, Image

        left, top, right, bottom = changed(self._shown, frame)
        pixels = np.ascontiguousarray(frame[top:bottom, left:right])
        reduced = Image.fromarray(pixels).quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        indexes = np.array(reduced)
        clear = int(indexes.max()) + 1
        colours = [*(reduced.getpalette() or [])[: 3 * clear], 0, 0, 0]
        if self._shown is not None:
            # What stays as it was is left clear, which takes hardly any room.
            indexes[(self._shown[top:bottom, left:right] == pixels).all(2)] = clear
        part = Image.fromarray(indexes)
        part.putpalette(colours)
        if self._shown is None:
            # A copy, as Pillow orders the colours of what it writes.
            self._store(GifImagePlugin.getheader(part.copy(), info={"loop": 0})[0])
        settings: dict[str, Any] = {"duration": 10 * min(hundredths, 65_535), "transparency": clear, "disposal": 1}
        self._store(GifImagePlugin.getdata(part, (left, top), include_color_table=True, **settings))
        self._shown = frame

    def _store(self, pieces: list[bytes]) -> None:
        try:
            self._file.writelines(pieces)
        except OSError as error:
            raise _unwritable(self._path, error) from error


def changed(before: np.ndarray | None, after: np.ndarray) -> tuple[int, int, int, int]:
    """Return the rectangle ``(left, top, right, bottom)`` outside of which two frames are equal; at least a pixel."""
    if before is None:
        return 0, 0, after.shape[1], after.shape[0]
    different = np.any(before != after, axis=2)
    rows, columns = np.flatnonzero(different.any(1)), np.flatnonzero(different.any(0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def check_new_file(path: Path, option: str) -> None:
    """Refuse a path that no film can be written to, before anything else is done.

    Raises:
        UsageError: with what would be right.
    """
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; give the path of a file, such as {path / 'film.mp4'}.")
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{option} {path} does not end in .mp4 or .gif, the two kinds of films there are.")
    if os.path.lexists(path):
        raise UsageError(f"{option} {path} exists already, and is not overwritten; remove it, or give another name.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {folder}; make it first, or choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: the folder {folder} cannot be written to; choose another place.")
