"""The machines of a cluster, as a Ray that is a stand-in tells of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from jumar.cluster.nodes import Node, first_words, names, nodes


def said(id: str, address: str, host: str | None, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": id,
        "NodeManagerAddress": address,
        "NodeManagerHostname": host,
        "Alive": alive,
        "Resources": resources,
    }


def test_machines_that_are_alive_are_told_with_their_processors() -> None:
    answers = [
        said("b", "10.0.0.7", "seven", CPU=4.0),
        said("a", "10.0.0.6", None),
        said("c", "10.0.0.8", "eight", alive=False),
    ]
    session: Any = SimpleNamespace(ray=SimpleNamespace(nodes=lambda: answers))
    found = nodes(session)
    assert found == [Node("a", "10.0.0.6", "10.0.0.6", 0), Node("b", "10.0.0.7", "seven", 4)]
    assert names(found) == ["10.0.0.6", "seven (10.0.0.7)"]


def test_rays_that_share_a_machine_are_told_apart() -> None:
    found = [Node(id, "10.0.0.7", "seven", 1) for id in ("0123456789", "abcdefghij")] + [
        Node("x", "10.0.0.8", "eight", 1)
    ]
    assert names(found) == ["seven (10.0.0.7) 012345", "seven (10.0.0.7) abcdef", "eight (10.0.0.8)"]


def test_an_error_of_a_task_is_told_by_its_cause() -> None:
    class Wrapped(Exception):
        cause = ModuleNotFoundError("No module named 'jumar'")

    assert first_words(Wrapped("a long traceback")) == "ModuleNotFoundError: No module named 'jumar'"
    assert first_words(TimeoutError("late\nand more")) == "TimeoutError: late"
    assert first_words(ValueError()) == "ValueError"
