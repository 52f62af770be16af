"""What the tests of the lab share: double precision, where a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
