"""Films: what was put in comes out again, at its time; and a file is there whole or not at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jumar.errors import JumarError, UsageError
from jumar.video import encoders
from jumar.video.encoders import Film, changed, check_new_file, find_ffmpeg


def moving(n: int, height: int = 40, width: int = 60) -> list[np.ndarray]:
    """Return frames on which a square moves."""
    frames = []
    for i in range(n):
        frame = np.full((height, width, 3), 230, np.uint8)
        frame[10:20, 2 * i : 2 * i + 10] = 200, 30, 40 + i
        frames.append(frame)
    return frames


def film(path: Path, frames: list[np.ndarray], rate: float) -> Path:
    with Film(path, rate) as made:
        for frame in frames:
            made.add(frame)
    return path


def gif_frames(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Return the frames of a GIF and how long each is shown, in milliseconds."""
    frames, times = [], []
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        for i in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
            times.append(int(image.info["duration"]))
    return frames, times


def test_a_gif_has_every_frame_and_its_time(tmp_path: Path) -> None:
    """30 frames per second are 3 1/3 hundredths each: the delays differ, so that their sum is right."""
    frames = moving(12)
    found, times = gif_frames(film(tmp_path / "a.gif", frames, 30.0))
    for there, here in zip(found, frames, strict=True):
        np.testing.assert_array_equal(there, here)
    assert set(times) == {30, 40}
    assert sum(times) == 400


def test_a_gif_too_quick_for_browsers_leaves_frames_out_and_keeps_the_time(tmp_path: Path) -> None:
    frames = moving(21)
    found, times = gif_frames(film(tmp_path / "a.gif", frames, 100.0))
    assert min(times) >= 20
    assert sum(times) == pytest.approx(210, abs=10)
    np.testing.assert_array_equal(found[0], frames[0])
    np.testing.assert_array_equal(found[-1], frames[-1])


def test_equal_frames_are_kept_apart(tmp_path: Path) -> None:
    frame = moving(1)[0]
    found, times = gif_frames(film(tmp_path / "a.gif", [frame] * 5, 10.0))
    assert sum(times) == 500
    np.testing.assert_array_equal(found[-1], frame)


def test_changes_are_found() -> None:
    first, second = moving(2)
    assert changed(None, first) == (0, 0, 60, 40)
    assert changed(first, second) == (0, 10, 12, 20)
    assert changed(first, first) == (0, 0, 1, 1)


def test_an_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    frames = moving(10, 64, 96)
    path = film(tmp_path / "a.mp4", frames, 12.5)
    ffmpeg = find_ffmpeg()
    said = subprocess.run([ffmpeg, "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False).stderr
    assert "h264" in said
    assert "yuv420p" in said
    assert "12.50 fps" in said
    decoded = subprocess.run(
        [ffmpeg, "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True,
        check=True,
    ).stdout
    pictures = np.frombuffer(decoded, np.uint8).reshape(10, 64, 96, 3)
    for there, here in zip(pictures, frames, strict=True):
        assert np.abs(there.astype(int) - here).mean() < 6
    box = path.read_bytes()
    assert box.index(b"moov") < box.index(b"mdat"), "the index is at the front"
    assert film(tmp_path / "b.mp4", frames, 12.5).read_bytes() == box, "the same frames, the same file"


def give_up(made: Film) -> None:
    with made:
        made.add(moving(1)[0])
        raise KeyboardInterrupt


def test_a_film_that_was_given_up_leaves_nothing(tmp_path: Path) -> None:
    for name in ("a.gif", *(["a.mp4"] if encoders.importlib.util.find_spec("imageio_ffmpeg") else [])):
        made = Film(tmp_path / name, 10.0)
        with pytest.raises(KeyboardInterrupt):
            give_up(made)
        assert not list(tmp_path.iterdir())
        assert not Path(made._folder.name).exists()


def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_text("mine")
    with pytest.raises(UsageError, match="has appeared in the meantime"):
        film(path, moving(1), 10.0)
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]
    assert path.read_text() == "mine"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoders, "write_new", full)
    with pytest.raises(JumarError, match=r"cannot be written to .*a\.gif: No space left"):
        film(tmp_path / "a.gif", moving(2), 10.0)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "ffmpeg"
    tool.write_text("#!/bin/sh\necho 'Error writing trailer: No space left on device' >&2\nexit 228\n")
    tool.chmod(0o755)
    monkeypatch.setattr(encoders, "find_ffmpeg", lambda: str(tool))
    with pytest.raises(JumarError, match="no space is left in"):
        film(tmp_path / "a.mp4", moving(3), 10.0)
    tool.write_text("#!/bin/sh\nexit 228\n")
    with pytest.raises(JumarError, match="no space is left in"):
        film(tmp_path / "a.mp4", moving(3), 10.0)
    tool.write_text("#!/bin/sh\ncat > /dev/null\necho 'something odd' >&2\nexit 3\n")
    with pytest.raises(JumarError, match="ffmpeg ended with 3: something odd"):
        film(tmp_path / "a.mp4", moving(3), 10.0)
    assert [file.name for file in tmp_path.iterdir()] == ["ffmpeg"]


def test_without_an_encoder_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(encoders.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'jumar\[video\]'.*--out FILE.gif"):
        find_ffmpeg()
    monkeypatch.setattr(encoders.shutil, "which", lambda name: "/usr/bin/ffmpeg")
    assert find_ffmpeg() == "/usr/bin/ffmpeg"


def test_paths_that_no_film_can_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").touch()
    (tmp_path / "dangling.gif").symlink_to(tmp_path / "nowhere")
    for name, said in (
        (".", "is a folder"),
        ("film.avi", "does not end in .mp4 or .gif"),
        ("film", "does not end in .mp4 or .gif"),
        ("old.mp4", "exists already"),
        ("dangling.gif", "exists already"),
        ("none/film.mp4", "there is no folder"),
    ):
        with pytest.raises(UsageError, match=said):
            check_new_file(tmp_path / name, "--out")
    check_new_file(tmp_path / "new.MP4", "--out")
