"""The compile cache: private or not used, loaded by the next process, never stuck on half an entry."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from jumar.xla import cache

PROGRAM = """
import logging, sys
from jumar.xla.compiler import prepare_compiler
folder = prepare_compiler(lambda text: print("warned:", text))
import jax, jax.numpy as jnp
from jax import monitoring
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
step = jax.jit(lambda x: jax.lax.scan(lambda c, _: (jnp.tanh(c @ c.T), c.sum()), x, None, length=5))
print(folder, len(hits), float(step(jnp.full((8, 8), 0.1, jnp.float32))[1].sum()).hex(), len(hits) > 0)
"""


def run(home: Path, program: str = PROGRAM, **environment: str) -> str:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("JAX_", "JUMAR_", "XDG_", "TF_CPP_", "XLA_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "XDG_CACHE_HOME": str(home), "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jumar" / "xla"


def test_the_next_process_loads_what_was_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "jumar" / "xla"
    first, second = run(tmp_path), run(tmp_path)
    assert first.split()[0] == second.split()[0] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert (first.split()[3], second.split()[3]) == ("False", "True")  # small programs too
    assert first.split()[2] == second.split()[2]  # and bit for bit the same program

    # Half an entry, as a killed process leaves it, costs one compilation, in silence.
    for entry in folder.glob("*-cache"):
        entry.write_bytes(entry.read_bytes()[:-20])
    third, fourth = run(tmp_path), run(tmp_path)
    assert (third.split()[3], fourth.split()[3]) == ("False", "True")


def test_loading_is_silent_where_xla_takes_its_tuning_flags_for_features(tmp_path: Path) -> None:
    run(tmp_path)
    entries = list((tmp_path / "jumar" / "xla").glob("*-cache"))
    assert entries
    for entry in entries:
        program = zlib.decompress(entry.read_bytes())
        if b"+sse2" not in program:
            pytest.skip("these programs do not list the processor's features as expected")
        entry.write_bytes(zlib.compress(program.replace(b"+sse2", b"+none")))
    assert run(tmp_path).split()[3] == "True"  # loaded, and run() saw nothing on standard error


def test_the_user_can_switch_it_off_or_have_their_own(tmp_path: Path) -> None:
    program = """
import jax
from jumar.xla.cache import enable_compile_cache
print(enable_compile_cache(print), jax.config.jax_compilation_cache_dir)
"""
    assert run(tmp_path, program, JUMAR_NO_COMPILE_CACHE="1") == "None None"
    assert run(tmp_path, program, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own")) == f"None {tmp_path / 'own'}"
    assert not (tmp_path / "jumar").exists()


def refusal(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the warning, and check that JAX's settings are not touched."""
    import jax

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv(cache.SWITCH_OFF, raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")  # given back after the test
    warnings: list[str] = []
    before = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009
    jax.config.update("jax_compilation_cache_dir", None)
    with monkeypatch.context() as patched:
        patched.setattr(jax.config, "update", lambda *args: pytest.fail("JAX's settings were changed"))
        assert cache.enable_compile_cache(warnings.append) is None
    jax.config.update("jax_compilation_cache_dir", before)
    (warning,) = warnings
    assert warning.startswith("compiled programs are not kept for the next run: ")
    return warning


@pytest.mark.parametrize("place", ["jumar", "jumar/xla"])
def test_a_folder_that_others_could_fill_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder.mkdir(parents=True)
    (tmp_path / place).chmod(0o770)
    assert f"{tmp_path / place} can be written by others" in refusal(monkeypatch)
    (tmp_path / place).chmod(0o707)
    assert "can be written by others" in refusal(monkeypatch)


@pytest.mark.parametrize("mode", [0o777, 0o775])
@pytest.mark.parametrize("place", [".", "above", "link"])
def test_a_folder_that_others_could_exchange_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, mode: int
) -> None:
    """The folder is private, but the one that it is in is not: who can write there can put another in its place."""
    home = tmp_path / "shared" if place == "." else tmp_path / "shared" / "mine"
    (home / "jumar" / "xla").mkdir(parents=True, mode=0o700)
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "shared").chmod(mode)
    os.chown(tmp_path / "shared", -1, 12345)  # a group that has no name, for who knows who is in it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "link" if place == "link" else home))
    said = refusal(monkeypatch)
    assert f"{tmp_path / 'shared'} can be written by others, who could exchange what is in it; `chmod go-w" in said
    monkeypatch.setattr(cache, "_tidy", lambda folder: None)
    (tmp_path / "shared").chmod(mode | 0o1000)  # sticky, as /tmp is
    assert cache._made(home) == home


def test_another_users_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert "belongs to another user" in refusal(monkeypatch)


def test_a_link_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert f"{folder} is a link or a file" in refusal(monkeypatch)


def test_a_home_that_cannot_hold_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "file" in refusal(monkeypatch)


def test_a_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache._cache_home() == tmp_path / ".cache"


def test_tidying_removes_half_entries_and_the_longest_unused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    whole = zlib.compress(os.urandom(1000))
    old = time.time() - 1000
    for age, name in enumerate(["newest", "middle", "oldest"]):
        (folder / f"{name}-cache").write_bytes(whole)
        os.utime(folder / f"{name}-cache", (old - age, old - age))
    (folder / "half-cache").write_bytes(whole[:-1])
    (folder / "changed-cache").write_bytes(whole[:100] + b"?" + whole[101:])
    (folder / "empty-cache").write_bytes(b"")
    (folder / "others").write_bytes(b"")
    cache._tidy(folder)
    left = ["middle-cache", "newest-cache", "oldest-cache", "others"]
    assert sorted(path.name for path in folder.iterdir()) == [cache.CHECKED, *left]
    monkeypatch.setattr(cache, "LARGEST_CACHE", 2 * len(whole))
    cache._tidy(folder)
    assert "oldest-cache" not in os.listdir(folder)
    assert {"middle-cache", "newest-cache"} < set(os.listdir(folder))


def test_entries_are_unpacked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    (folder / "a-cache").write_bytes(zlib.compress(b"a"))
    os.utime(folder / "a-cache", (1000, 1000))
    cache._tidy(folder)
    monkeypatch.setattr(cache, "_is_whole", lambda path: pytest.fail(f"unpacked {path} again"))
    cache._tidy(folder)
