"""The machines of a Ray cluster: which there are, and what each says of itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jumar.cluster.ray_session import RaySession


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        id: Ray's name for it.
        address: at which the others reach it.
        host: its name.
        processors: how many it offers.
    """

    id: str
    address: str
    host: str
    processors: int

    def __str__(self) -> str:
        return self.host if self.host in ("", self.address) else f"{self.host} ({self.address})"


def nodes(session: RaySession) -> list[Node]:
    """Return the machines that are alive, in the order of their addresses."""
    found = [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            node.get("NodeManagerHostname") or node["NodeManagerAddress"],
            int(node["Resources"].get("CPU", 0)),
        )
        for node in session.ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: (node.address, node.id))


def names(of: Sequence[Node]) -> list[str]:
    """Return a name for each machine; where several Rays share one, Ray's own names tell them apart."""
    shown = [str(node) for node in of]
    return [f"{name} {node.id[:6]}" if shown.count(name) > 1 else name for name, node in zip(shown, of, strict=True)]


def ask_each(
    session: RaySession, asked: Sequence[Node], function: Callable[..., Any], *arguments: Any, seconds: float
) -> dict[Node, Any]:
    """Return what a function returns on each machine, or the exception that it, or Ray, raised there.

    Args:
        session: the cluster.
        asked: the machines.
        function: of a module that can be imported there.
        arguments: its arguments.
        seconds: in which all must have answered; who has not is given a ``TimeoutError``.
    """
    ray, strategies = session.ray, importlib.import_module("ray.util.scheduling_strategies")
    remote = ray.remote(function)
    questions = {
        remote.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(*arguments): node
        for node in asked
    }
    ready, late = ray.wait(list(questions), num_returns=len(questions), timeout=seconds) if questions else ([], [])
    answers: dict[Node, Any] = {}
    for question in ready:
        try:
            answers[questions[question]] = ray.get(question)
        except Exception as error:
            answers[questions[question]] = error
    for question in late:
        ray.cancel(question, force=True)
        answers[questions[question]] = TimeoutError(f"it did not answer within {seconds:g} s")
    return {node: answers[node] for node in asked}


def first_words(error: BaseException) -> str:
    """Return an error of a task in one line: Ray puts the traceback first, and what was raised last."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return first_words(cause)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
