"""An update whose policy and critic move apart, computed as two programs at once.

Where the critic is fitted by itself, neither needs what the other becomes. But XLA does one after the other, and most
products of a small network keep a single processor busy. So the update is compiled twice, once for what becomes of the policy
and once for what becomes of the critic; the compiler leaves out of each what it does not need, and the two run in threads of
their own. What little both need (values, advantages) is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jumar.algorithms.update import all_finite
from jumar.solvers.separate import is_about_the_critic

Learn = Callable[..., tuple[Any, ...]]
"""Takes a learner and more; returns it after an update, the flight record, and what else came of it."""


class Halves:
    """A function that learns, as two programs. It returns what the whole would, the flight record on the host.

    Args:
        learn: the whole; the update's solver is :class:`~jumar.solvers.Apart`.
    """

    def __init__(self, learn: Learn) -> None:
        def policys(*arguments: Any) -> Any:
            learner, record, *others = learn(*arguments)
            learner = learner._replace(
                parameters={"policy": learner.parameters["policy"]}, solver={"policy": learner.solver["policy"]}
            )
            record = {name: x for name, x in record.items() if not is_about_the_critic(name)}
            record["finite"] = all_finite(learner._replace(experience=()))
            return learner, record, *others

        def critics(*arguments: Any) -> Any:
            learner, record, *_ = learn(*arguments)
            half = {"parameters": learner.parameters["critic"], "solver": learner.solver["critic"]}
            record = {name: x for name, x in record.items() if is_about_the_critic(name)}
            return half, {**record, "finite": all_finite(half)}

        self._policys, self._critics = jax.jit(policys), jax.jit(critics)
        self._thread = ThreadPoolExecutor(1, "jumar-critic")

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        """Learn."""
        fitting = self._thread.submit(self._critics, *arguments)
        learner, record, *others = self._policys(*arguments)
        critic, about = fitting.result()
        record, about = jax.device_get((record, about))
        learner = learner._replace(
            **{name: {**getattr(learner, name), "critic": critic[name]} for name in ("parameters", "solver")}
        )
        record = {**record, **about, "finite": record["finite"] & about["finite"]}
        return learner, record, *others
