"""``jumar figure``: draw figures of the textbooks by running Jumar."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jumar.cli.lists import listed
from jumar.cli.output import Outcome
from jumar.console.terminal import output_columns
from jumar.errors import UsageError
from jumar.text import counted

if TYPE_CHECKING:
    from jumar.figures.figure import Figure

ENDINGS = (".png", ".svg")


class Target(NamedTuple):
    """A figure and the files that it is written to."""

    figure: Figure
    pictures: tuple[Path, ...]
    data: Path | None


def run(arguments: argparse.Namespace) -> Outcome:
    """Draw the figures, or list them."""
    if arguments.list and not arguments.names:
        return _list()
    from jumar.figures.registry import FIGURES, in_order

    if arguments.list:
        raise UsageError(f"--list lists all figures; leave {' '.join(arguments.names)} out, or --list.")
    if not arguments.names:
        raise UsageError(
            "jumar figure: NAME is missing; `jumar figure --list` lists the figures; for example: jumar figure 12.2"
        )
    figures = in_order(arguments.names)
    source = Path(arguments.source) if arguments.source is not None else None
    for figure in figures:
        figure.check(arguments.steps, source)
    targets = _targets(figures, "all" in arguments.names, arguments.out, arguments.data)
    left_out = [name for name, figure in FIGURES.items() if figure.slow] if "all" in arguments.names else []
    files = [file for target in targets for file in _draw(target, arguments.steps, source, len(targets) > 1)]
    return Outcome(
        {
            "figures": [figure.name for figure in figures],
            "files": [str(file) for file in files],
            "source": figures[0].source if len(figures) == 1 else {figure.name: figure.source for figure in figures},
        },
        _words(figures, files, arguments.steps, [name for name in left_out if FIGURES[name] not in figures]),
        kept=True,
    )


def _list() -> Outcome:
    from jumar.figures.registry import FIGURES

    lines = [
        (name, f"{figure.title} ({figure.source})" + (", slow: trains for minutes" if figure.slow else ""))
        for name, figure in FIGURES.items()
    ]
    entries = [
        {
            "name": name,
            "title": figure.title,
            "source": figure.source,
            "caption": figure.words(),
            "slow": figure.slow,
            "steps": figure.steps,
        }
        for name, figure in FIGURES.items()
    ]
    return Outcome({"figures": entries}, listed(lines, output_columns()))


def _targets(figures: list[Figure], several: bool, out: str | None, data: str | None) -> list[Target]:
    """Decide which files are written, and refuse paths that cannot be.

    Raises:
        UsageError: a path is no file or folder to write to, or has another ending.
    """
    if "" in (out, data):
        raise UsageError("a path's name is empty.")
    if len(figures) == 1 and not several:
        [figure] = figures
        picture = Path(out or f"{figure.name}.png")
        if picture.is_dir():
            raise UsageError(f"--out {out} is a folder; give the path of a file, such as {picture / figure.name}.png.")
        if picture.suffix.lower() not in ENDINGS:
            raise UsageError(f"--out {out} does not end in .png or .svg, the two kinds that figures are written as.")
        numbers = Path(data) if data else None
        if numbers is not None and numbers.is_dir():
            raise UsageError(
                f"--data {data} is a folder; give the path of a file, such as {numbers / figure.name}.json."
            )
        if numbers == picture:
            raise UsageError(f"--data and --out are both {picture}; give two files.")
        for path in (picture, numbers):
            _check_folder(path.absolute().parent if path else None)
        return [Target(figure, (picture,), numbers)]
    folder, numbers = Path(out or "figures"), Path(data) if data else None
    for option, path in (("--out", folder), ("--data", numbers)):
        if path is not None and path.exists() and not path.is_dir():
            raise UsageError(f"{option} {path} is a file; several figures are written to a folder.")
        if path is not None and not path.exists():
            if path.suffix.lower() in (*ENDINGS, ".json"):
                raise UsageError(f"{option} {path} names a file; several figures are written to a folder.")
            _make(path)
        _check_folder(path)
    return [
        Target(
            figure,
            tuple(folder / f"{figure.name}{ending}" for ending in ENDINGS),
            numbers / f"{figure.name}.json" if numbers else None,
        )
        for figure in figures
    ]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made ({error.strerror}); choose another place.") from None


def _check_folder(folder: Path | None) -> None:
    """Raise ``UsageError`` where no file can be written to a folder."""
    if folder is None:
        return
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist; make it first, or choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {folder} cannot be written to; choose another place.")


def _draw(target: Target, steps: int | None, source: Path | None, tell: bool) -> list[Path]:
    """Compute, draw and write one figure; return the files."""
    from jumar.figures.figure import data_file, picture
    from jumar.runs.files import write_atomically

    figure = target.figure
    if tell or figure.slow:
        print(f"{figure.name}: {figure.title} ...", file=sys.stderr, flush=True)
    data = figure.data(steps, source)
    for path in target.pictures:
        write_atomically(path, picture(figure, data, path.suffix.lower()))
    if target.data is None:
        return list(target.pictures)
    write_atomically(target.data, data_file(figure, data, steps))
    return [*target.pictures, target.data]


def _words(figures: list[Figure], files: list[Path], steps: int | None, left_out: list[str]) -> str:
    if len(figures) == 1:
        [figure] = figures
        return "\n".join([figure.words(steps), f"After {figure.source}.", *(f"Written to {file}" for file in files)])
    lines = [f"{counted(len(figures), 'figure')} written to {files[0].parent}: {counted(len(files), 'file')}."]
    if left_out:
        lines.append(f"Left out, as they train for minutes: {' '.join(left_out)}. Name them to draw them.")
    return "\n".join(lines)
