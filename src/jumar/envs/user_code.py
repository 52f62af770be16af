"""Code of the user's, and optional packages: imported, called, and blamed where it raises."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from jumar.errors import UnsupportedEnvironment, UsageError, unknown


def import_user_module(module_name: str, name: str) -> ModuleType:
    """Import a module of the user's, for an environment of this name.

    Raises:
        UsageError: there is none.
        UnsupportedEnvironment: it raises; with the file and line.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UsageError(
                f"environment {name}: there is no module {error.name!r} here ({os.getcwd()}) or among the installed."
            ) from None
        raise user_code_error(f"environment {name}: importing {module_name} raises", error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise user_code_error(f"environment {name}: importing {module_name} raises", error) from error


def construct(constructor: Callable[..., Any], name: str, kwargs: Mapping[str, Any]) -> Any:
    """Make an environment with the user's arguments.

    Raises:
        UsageError: an argument is unknown or missing.
        UnsupportedEnvironment: the constructor raises.
    """
    try:
        signature = inspect.signature(constructor)
    except (TypeError, ValueError):  # some extension types have none
        signature = None
    if signature is not None:
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            for argument in kwargs:
                if argument not in signature.parameters:
                    raise unknown(f"argument of environment {name}", argument, signature.parameters)
        try:
            signature.bind(**kwargs)
        except TypeError as error:
            raise UsageError(f"environment {name}: {error}.") from None
    try:
        return constructor(**kwargs)
    except UsageError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise user_code_error(f"environment {name}: making it raises", error) from error


def user_code_error(what: str, error: BaseException) -> UnsupportedEnvironment:
    """Turn an exception of the user's code into one sentence with its type, message, file and line."""
    message = str(error).strip().splitlines()
    text = f"{what} {type(error).__name__}" + (f": {message[0]}" if message else "")
    return UnsupportedEnvironment(f"{text} ({_place(error)})")


def _place(error: BaseException) -> str:
    """Return ``file:line`` of the deepest frame that is neither an installed package nor Jumar."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    paths = sysconfig.get_paths()
    foreign = (*(paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")), _PACKAGE, "<")
    own = [frame for frame in frames if not frame.filename.startswith(foreign)]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def import_optional(module_name: str, extra: str) -> ModuleType:
    """Import an optional package, keeping what it prints while being imported off the terminal.

    Raises:
        UsageError: it is not installed or cannot be imported; the message names the extra to install.
    """
    if module_name in sys.modules:
        return sys.modules[module_name]
    package = module_name.partition(".")[0]
    hint = f"pip install 'jumar[{extra}]'"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return importlib.import_module(module_name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise UsageError(f"{package} is not installed; {hint}") from None
        raise UsageError(f"{package} is installed but cannot be imported ({error}); {hint}") from error
