"""Means of entries of ``info`` over an iteration, for ``log_info``.

Each entry has three sums, ``[3, K]``: of its values, of the steps that have one, and of the steps whose value is not finite.
Environments on the host give values step by step (``HostStep.infos``), programs the sums of many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.envs.host import HostStep
from jumar.errors import nearest

Keys = tuple[str, ...]
SUMS = 3
MOST_NAMED = 8
"""How many other entries a message names."""


def no_sums(keys: Keys) -> Any:
    """Return the sums before any step; ``()`` where nothing is logged, so that no program has them."""
    return jnp.zeros((SUMS, len(keys)), jnp.float32) if keys else ()


def sums_of(infos: Mapping[str, Array], keys: Keys, valid: Array) -> Array:
    """Return the sums of steps ``[T, N]`` in a program; ``infos`` has those of the keys that are there."""
    nothing = jnp.zeros((SUMS,), jnp.float32)
    columns = []
    for key in keys:
        if key not in infos:
            columns.append(nothing)
            continue
        value = infos[key].astype(jnp.float32)
        counts = valid & jnp.isfinite(value)
        columns.append(
            jnp.stack(
                [
                    jnp.sum(jnp.where(counts, value, 0.0)).astype(jnp.float32),
                    jnp.sum(counts).astype(jnp.float32),
                    jnp.sum(valid & ~counts).astype(jnp.float32),
                ]
            )
        )
    return jnp.stack(columns, axis=-1)


def not_numbers(shapes: Mapping[str, tuple[int, ...] | None], keys: Keys) -> list[str]:
    """Say which of the keys are there and are not one number.

    ``shapes`` are those of the entries of one ``info``, ``None`` for what is not numeric.
    """
    found = {key: shapes[key] for key in keys if shapes.get(key, ()) != ()}
    return [
        f"info[{key!r}] is not one number but {'text or a structure' if shape is None else f'an array of shape {shape}'}, "
        "and is not logged."
        for key, shape in found.items()
    ]


class InfoMeans:
    """Adds up the entries of ``info`` over an iteration.

    Args:
        keys: which.
        name: what to call the environment.
        warn: hears once, for each key, that no step has it or that it is not a finite number.

    Attributes:
        numbers: the entries that are known to be numbers, in the order in which they were seen.
    """

    PATIENCE = 10
    """After how many iterations a key that no step had is spoken of."""

    def __init__(self, keys: Keys = (), name: str = "", warn: Callable[[str], None] | None = None) -> None:
        self.keys = keys
        self._name, self._warn = name, warn or (lambda words: None)
        self._sums = np.zeros((SUMS, len(keys)))
        self._iterations = 0
        self._unseen, self._said = set(keys), set()
        self.numbers: dict[str, None] = {}

    def begin(self) -> None:
        """Forget the steps so far: an iteration begins."""
        self._sums = np.zeros((SUMS, len(self.keys)))

    def expect(self, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
        """Take note of the entries that every step has, given the shapes of those of one ``info``, ``None`` for no numbers."""
        self.numbers.update({name: None for name, shape in shapes.items() if shape == ()})
        self._unseen.difference_update(shapes)

    def add_step(self, step: HostStep) -> None:
        """Take in one step of all environments."""
        if step.infos is not None:
            values = step.infos[:, step.valid]
            known = np.isfinite(values)
            self._sums[0] += np.where(known, values, 0.0).sum(1)
            self._sums[1] += known.sum(1)
        self.numbers.update(dict.fromkeys(step.info_numbers))
        for key, words in (step.info_complaints or {}).items():
            self._unseen.discard(key)
            self._say(key, f"{words} Such steps do not count in info/{key}.")

    def add_sums(self, sums: Any) -> None:
        """Take in the sums of a program."""
        self._sums = self._sums + np.asarray(sums, np.float64)

    def end(self) -> np.ndarray:
        """Return the sums of the iteration, ``[3, K]`` (with a leading axis for several seeds)."""
        self._iterations += 1
        sums = self._sums
        together = sums.reshape(-1, SUMS, len(self.keys)).sum(0)
        for i, key in enumerate(self.keys):
            if together[1:, i].any():
                self._unseen.discard(key)
            if together[2, i]:
                self._say(
                    key,
                    f"info[{key!r}] of {self._name} was NaN or infinite in {int(together[2, i]):,} steps; such steps do not "
                    f"count in info/{key}.",
                )
        if self._iterations == self.PATIENCE:
            self.miss(sorted(self._unseen))
        return sums

    def miss(self, keys: Sequence[str]) -> None:
        """Say that no step has these keys."""
        others = [name for name in self.numbers if name not in self.keys]
        for key in keys:
            there = "its info has no other numbers"
            close = nearest(key, others)
            named = [*close, *(name for name in others if name not in close)][:MOST_NAMED]
            if named:
                more = f" and {len(others) - len(named)} more" if len(others) > len(named) else ""
                there = f"the numbers there are: {', '.join(named)}{more}"
            self._say(key, f"no step of {self._name} has had info[{key!r}] so far, so info/{key} is empty; {there}.")

    def close(self) -> None:
        """Speak of what no step had, in a run that was too short for it."""
        if 0 < self._iterations < self.PATIENCE:
            self.miss(sorted(self._unseen))

    def _say(self, what: str, words: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._warn(words)


def mean_of(sums: np.ndarray) -> float | None:
    """Return the mean of one entry's three sums; ``None`` where no step had it."""
    return float(sums[0] / sums[1]) if sums[1] else None
