"""Compiling, and counting what is compiled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def compiled_as_ever(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the older emitters of ``conftest.QUICK``.

    They abort where two argmaxes of one shape are taken in one program, as of drawn and of most likely actions: XLA fuses the
    two, and they cannot.
    """
    older = "xla_cpu_use_fusion_emitters=false" in os.environ.get("XLA_FLAGS", "")
    return jax.jit(function, compiler_options={"xla_cpu_use_fusion_emitters": True} if older else None)


_seen: list[str] = []


def _hear(event: str, duration_secs: float, **_: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _seen.append(event)


jax.monitoring.register_event_duration_secs_listener(_hear)


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Fail if anything at all is compiled (or loaded from the compile cache) within the block."""
    before = len(_seen)
    yield
    assert len(_seen) == before, f"{len(_seen) - before} programs were compiled"


DECOMPOSITIONS = {
    "qr",
    "geqrf",
    "householder_product",
    "cholesky",
    "eigh",
    "eig",
    "svd",
    "lu",
    "schur",
    "triangular_solve",
}


def stacked_decompositions(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """Return the decompositions and triangular solves of a program that take many stacked matrices at once.

    Two of them under way in XLA's thread pool, each of more matrices than some 64, wait for each other for ever.
    """
    return sorted(_stacked(jax.make_jaxpr(function)(*arguments).jaxpr))


def _stacked(jaxpr: Jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in DECOMPOSITIONS and any(getattr(x.aval, "ndim", 0) > 2 for x in equation.invars):
            yield equation.primitive.name
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, (ClosedJaxpr, Jaxpr))
        ):
            if isinstance(parameter, (ClosedJaxpr, Jaxpr)):
                yield from _stacked(parameter.jaxpr if isinstance(parameter, ClosedJaxpr) else parameter)
