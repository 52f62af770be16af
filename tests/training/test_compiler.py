"""Preparing the compiler: its options reach XLA, and a user's own come first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jumar.training.compiler import TUNING, tune_compiler

DUMP = """
import jax
import jax.numpy as jnp
from jumar.training.compiler import tune_compiler
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
