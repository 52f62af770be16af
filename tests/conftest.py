"""What all tests share: a compile cache of the session's own, and a working directory that is nobody's."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from jumar.cli import MANY_OBJECTS
from jumar.xla.cache import enable_compile_cache
from jumar.xla.compiler import multiply_in_single_precision, tune_compiler

OWNER = "JUMAR_TEST_CACHE_OWNER"
"""Set by the process that made the cache folder; workers of pytest-xdist inherit it and share the folder."""

if OWNER not in os.environ:
    os.environ[OWNER] = str(os.getpid())
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="jumar-tests-")


QUICK = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)
"""Has XLA compile by its older emitters, optimise less and keep to one thread, as there is a test on each processor: most
programs run once here. See ``compiled_as_ever``."""

if (
    jax.__version_info__ < (0, 11) and "XLA_FLAGS" not in os.environ
):  # which refuse to begin: they do not have the older emitters
    os.environ["XLA_FLAGS"] = QUICK

# No test looks at the lines of Python that XLA's programs are said to come from; to write them down costs time in lowering.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
jax.config.update("jax_traceback_in_locations_limit", 0)

# Where it is set (containers often do), each process that a test starts would compile all of Jumar's modules once more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# As the command does, for the same reason.
gc.set_threshold(MANY_OBJECTS)

# As in every process that trains: results of this process and of those that it starts are compared bit for bit.
tune_compiler()
multiply_in_single_precision()
CACHE = enable_compile_cache(print)
"""Where all tests, and all that train, keep compiled programs: what repeats is loaded, a tenth of the time or more."""


def pytest_unconfigure() -> None:
    """Remove the compile cache, once all who use it are done."""
    if os.environ[OWNER] == str(os.getpid()):
        shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


MOST_MAPPINGS = 20_000
"""Linux lets a process have some 65,000 memory mappings; every compiled program takes some, and beyond that it is aborted."""


@pytest.fixture(autouse=True, scope="module")
def _programs_are_let_go() -> Iterator[None]:
    """Forget all compiled programs after a module where there are very many; the cache on the disk has them still."""
    yield
    mappings = Path("/proc/self/maps")
    if "jax" in sys.modules and mappings.exists() and mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        sys.modules["jax"].clear_caches()


@pytest.fixture(autouse=True)
def _own_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in a temporary directory, so that a ``runs`` folder can never land in the project."""
    monkeypatch.chdir(tmp_path)
