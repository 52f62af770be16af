"""Preparing the compiler: its options reach XLA, and a user's own come first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jumar.xla.compiler import TUNING, tune_compiler

DUMP = """
import jax
import jax.numpy as jnp
from jumar.xla.compiler import tune_compiler
tune_compiler()
program = jax.jit(lambda x: (jnp.where(x > 0, x / x.sum(), 0.0), x > x.sum(), x * x.sum()))
print(program.lower(jnp.ones((64, 64))).compile().as_text().count(" fusion("))
"""


def fusions(flags: str) -> int:
    """Return how many fusions XLA makes of a small program with several outputs."""
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", DUMP], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_the_options_reach_xla_and_a_users_own_come_first() -> None:
    assert fusions("") < fusions("--xla_backend_extra_options=xla_nothing=true")


def test_options_are_added_once_and_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    tune_compiler()
    once = os.environ["XLA_FLAGS"]
    assert once.startswith("--xla_cpu_enable_fast_math=false --xla_backend_extra_options=")
    assert all(f"{name}={value}" in once for name, value in TUNING.items())
    tune_compiler()
    assert os.environ["XLA_FLAGS"] == once


PRECISION = """
import jax
import jax.numpy as jnp
from jumar.xla.compiler import multiply_in_single_precision
multiply_in_single_precision()
print("HIGHEST" in jax.jit(jnp.dot).lower(jnp.ones((4, 4)), jnp.ones((4, 4))).as_text())
"""


@pytest.mark.parametrize(("chosen", "exact"), [(None, "True"), ("bfloat16", "False")])
def test_products_are_not_rounded_unless_the_user_says_so(chosen: str | None, exact: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_DEFAULT_MATMUL_PRECISION"}
    environment |= {"JAX_PLATFORMS": "cpu"} | ({"JAX_DEFAULT_MATMUL_PRECISION": chosen} if chosen else {})
    command = [sys.executable, "-c", PRECISION]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [exact]


SPREAD = """
import sys
import jax
import jax.numpy as jnp
from jumar.xla.compiler import divide_processors
from jumar.collecting.programs import over_seeds
parts = int(sys.argv[1])
divide_processors(parts)
x = jnp.arange(12.0).reshape(4, 3)
def both(x, shared):
    return jnp.cumsum(x) * shared, shared + 1.0
y, after = jax.jit(over_seeds(both, (0, None), (0, None), 4))(x, 2.0)
assert (y == 2.0 * jnp.cumsum(x, axis=1)).all()
assert after.shape == () and after == 3.0
print(len(jax.devices()), len(y.sharding.device_set))
"""


def spread(parts: int, flags: str) -> list[int]:
    """Return how many devices JAX has, and over how many of them four seeds are spread."""
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SPREAD, str(parts)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_processors_are_divided_among_seeds() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert spread(1, "") == [1, 1]
    devices = max(n for n in range(1, cores + 1) if 4 % n == 0)
    assert spread(4, "") == [devices, devices]


@pytest.mark.parametrize(("devices", "used"), [(2, 2), (3, 2), (4, 4), (8, 4)])
def test_seeds_are_spread_over_as_many_devices_as_divide_them(devices: int, used: int) -> None:
    assert spread(4, f"--xla_force_host_platform_device_count={devices}") == [devices, used]
