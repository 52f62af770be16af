"""How much memory a replay buffer may take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

import jumar
from jumar.algorithms.registry import algorithm
from jumar.errors import UsageError
from jumar.policies.policy import make_policy
from jumar.training import allowance, assembly
from jumar.training.allowance import available_memory, check_allowance, in_bytes
from jumar.training.remembered import Buffer

BOX, ACTIONS = spaces.Box(-1.0, 1.0, (17,), np.float32), spaces.Box(-1.0, 1.0, (6,), np.float32)
ROW = 4 * (2 * 17 + 6 + 5)


def buffer(n_seeds: int | None = None, **settings: int) -> Buffer:
    chosen = algorithm("sac")
    made = chosen.settings.make(settings)
    found = Buffer.of(chosen.make(made, make_policy(BOX, ACTIONS, made)), n_seeds)
    assert found is not None
    return found


def test_the_size_is_that_of_the_ring_for_all_seeds() -> None:
    one = buffer(buffer_size=1_000_000, log_every=1000)
    assert one.bytes == ROW * 1_001_000
    ring = buffer(buffer_size=64, n_envs=2, log_every=8, batch_size=8).replay.ring()
    assert buffer(3, buffer_size=64, n_envs=2, log_every=8, batch_size=8).bytes == 3 * sum(
        x.nbytes for x in ring.values()
    )


@pytest.mark.parametrize("n_seeds", [None, 4])
def test_the_size_that_is_said_to_fit_fits_and_hardly_more_does(n_seeds: int | None) -> None:
    with pytest.raises(UsageError, match=r"buffer_size=1000000 takes .* of the 1\.0 MB that are available") as error:
        check_allowance(buffer(n_seeds, buffer_size=1_000_000, n_envs=2, log_every=20), 1_000_000)
    fits = int(str(error.value).split("buffer_size=")[2].split()[0])
    settings = {"n_envs": 2, "log_every": 20, "batch_size": 8}
    check_allowance(buffer(n_seeds, buffer_size=fits, **settings), 1_000_000)
    with pytest.raises(UsageError):
        check_allowance(buffer(n_seeds, buffer_size=fits * 11 // 10, **settings), 1_000_000)


def test_where_none_fits_something_else_is_said_and_where_nothing_is_known_nothing() -> None:
    large = buffer(buffer_size=1_000_000)
    with pytest.raises(UsageError, match="make n_envs, n_seeds or log_every smaller"):
        check_allowance(large, 1000)
    check_allowance(large, None)


def test_an_agent_is_refused_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "available_memory", lambda: 10**9)
    with pytest.raises(UsageError, match="takes 48 GB of memory"):
        jumar.SAC("jax/Pendulum-v1", buffer_size=10**12 // 1000)


def test_a_buffer_that_is_there_is_not_measured_against_what_is_left_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = jumar.SAC("jax/Pendulum-v1", preset="none", net_arch=(8,), buffer_size=20_000, log_every=50)
    monkeypatch.setattr(assembly, "available_memory", lambda: 1000)
    agent._training.log(("speed",))
    assert agent._training.plan.log_info == ("speed",)


@pytest.mark.parametrize(
    ("meminfo", "limit", "used", "stat", "expected"),
    [
        ("MemTotal: 9 kB\nMemAvailable:    2000 kB\n", None, None, None, 2_048_000),
        ("MemAvailable: 2000 kB\n", "max", "5", "", 2_048_000),
        ("MemAvailable: 2000 kB\n", "1000000", "600000", "anon 1\ninactive_file 100000\n", 500_000),
        ("MemAvailable: 2000 kB\n", "1000", "2000", "anon 1\n", 0),
    ],
)
def test_what_is_available_is_the_least_that_anyone_says(
    meminfo: str,
    limit: str | None,
    used: str | None,
    stat: str | None,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allowance, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(allowance, "CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text(meminfo)
    for name, words in (("memory.max", limit), ("memory.current", used), ("memory.stat", stat)):
        if words is not None:
            (tmp_path / name).write_text(words)
    assert available_memory() == expected


def test_without_a_word_of_the_system_all_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(allowance, "CGROUP", tmp_path)
    found = available_memory()
    assert found is not None
    assert found > 10**8


def test_bytes_in_words() -> None:
    assert [in_bytes(x) for x in (7, 1500, 180_180_000, 999_900_000, 1_440_000_000, 56_400_000_000)] == [
        "7 bytes",
        "1.5 kB",
        "180 MB",
        "1,000 MB",
        "1.4 GB",
        "56 GB",
    ]
