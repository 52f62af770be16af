"""Entries of a run directory that are something else than they should be: links, pipes, devices."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

FILES = (
    *("config.json", "metrics.jsonl", "evaluations.jsonl", "learning_curve.png", ".lock"),
    *("policy.json", "policy.safetensors", "policy.safetensors.new", "best/policy.json", "best/policy.safetensors.new"),
    *("checkpoints/000000000064/state.safetensors", "checkpoints/000000000064.set-aside/checkpoint.json"),
    *("tensorboard/events.out.tfevents.1", "seed_3/metrics.jsonl", "seed_3/best/policy.json"),
)
FOLDERS = ("best", "checkpoints", "tensorboard", "checkpoints/000000000064", "seed_3", "seed_3/best")
PRECIOUS = {"precious": "mine", ".policy.json.0123abcd.tmp": "mine too"}
"""What lies in the folder that links lead to."""

Plant = Callable[[Path, Path], None]
"""(place, folder outside) -> puts something at the place."""


def to_a_file(place: Path, outside: Path) -> None:
    """Put a link to a file there."""
    place.symlink_to(outside / "precious")


def to_nothing(place: Path, outside: Path) -> None:
    """Put a link there to where nothing is."""
    place.symlink_to(outside / "new")


def to_a_folder(place: Path, outside: Path) -> None:
    """Put a link to a folder there."""
    place.symlink_to(outside)


def to_a_device(place: Path, outside: Path) -> None:
    """Put a link to a file without an end there."""
    place.symlink_to("/dev/zero")


def a_pipe(place: Path, outside: Path) -> None:
    """Put a named pipe there, to open which would wait for ever."""
    os.mkfifo(place)


KINDS: Mapping[str, Plant] = {
    "a link to a file": to_a_file,
    "a link to nothing": to_nothing,
    "a link to a folder": to_a_folder,
    "a link to a device": to_a_device,
    "a pipe": a_pipe,
}


def make_outside(folder: Path) -> Path:
    """Make the folder that links lead to, and return it."""
    folder.mkdir()
    for name, text in PRECIOUS.items():
        (folder / name).write_text(text)
    return folder


def plant(run: Path, name: str, kind: str, outside: Path) -> None:
    """Put something of a kind in the place of an entry of a run directory."""
    place = run / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    KINDS[kind](place, outside)
