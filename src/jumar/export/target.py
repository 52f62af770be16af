"""What is looked at before a policy is exported: the format, the packages and the file."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from jumar.errors import UsageError, unknown

FORMATS = ("onnx",)
"""The formats that there are."""
ENDING = ".onnx"
"""How the name of a file ends."""
PACKAGES = ("onnx", "onnxruntime")
"""What the extra ``onnx`` installs."""


def check_target(path: str | os.PathLike[str], format: str) -> Path:
    """Return the path of a new file that can be made.

    Raises:
        UsageError: the format is unknown, a package is missing, the path has another ending, something is there, or no file
            can be made in its folder.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        are = "which is" if len(missing) == 1 else "which are"
        raise UsageError(f"ONNX files need {' and '.join(missing)}, {are} not installed: pip install 'jumar[onnx]'.")
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise UsageError(f"{path!r} is not the path of a file, such as policy{ENDING}.")
    file = Path(path)
    folder = file.absolute().parent
    if file.is_dir():
        raise UsageError(f"{file} is a folder; give the path of a file, such as {file / 'policy'}{ENDING}.")
    if file.suffix.lower() != ENDING:
        raise UsageError(f"{file} does not end in {ENDING}, as files of this format do.")
    if os.path.lexists(file):
        raise UsageError(f"{file} exists; remove it, or choose another name.")
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist; make it first, or choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {folder} cannot be written to; choose another place.")
    return file
