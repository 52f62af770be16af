"""The doctor's examination of a cluster: what it makes of what nodes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jumar.cli import main
from jumar.verification.doctor import cluster, on_nodes
from jumar.verification.doctor.children import Answer, ask
from jumar.verification.doctor.finding import Finding

HERE = {
    "word": "w", "locked": True, "versions": {"python": "3.11.7", "jax": "0.10.2"}, "processor": "Abacus", "sets": ["avx2"],
    "memory": 8 * 2**30, "digest": "aa", "fault": None,
}  # fmt: skip


def node(**changes: Any) -> dict[str, Any]:
    return {**HERE, "seen": True, "processors": 2, **changes}


def judged(**nodes: dict[str, Any]) -> dict[str, Finding]:
    found = list(cluster.judge_nodes(nodes, HERE, Path("/shared/runs")))
    return {
        f"{each.name}{i or ''}": each
        for name in {f.name for f in found}
        for i, each in enumerate(f for f in found if f.name == name)
    }


def test_nodes_that_are_alike_are_well() -> None:
    found = judged(a=node(), b=node())
    assert {name: each.status for name, each in found.items()} == dict.fromkeys(
        ("versions", "processors", "folder", "memory"), "ok"
    )
    assert (
        found["processors"].words
        == "All nodes have the processor of this machine, Abacus (avx2), and compute the same."
    )
    assert found["memory"].words == "Free memory: a 8.0 GiB, b 8.0 GiB."


@pytest.mark.parametrize(
    ("name", "status", "bad", "words"),
    [
        ("versions", "fault", {"versions": {"python": "3.11.7", "jax": "0.9"}}, "b has jax 0.9 instead of 0.10.2."),
        ("folder", "fault", {"seen": False}, "b does not see /shared/runs, where runs are kept."),
        ("folder", "note", {"locked": False}, "All nodes see /shared/runs, but its locks do not reach b"),
        (
            "processors",
            "note",
            {"processor": "Quipu"},
            "the same bits on all (a, this machine: Abacus (avx2); b: Quipu (avx2))",
        ),
        ("processors", "warning", {"digest": "bb"}, "A small program gives other last bits on some nodes"),
        (
            "processors",
            "fault",
            {"fault": "it was ended by SIGILL", "digest": None},
            "JAX cannot compute on b: it was ended by SIGILL.",
        ),
        ("memory", "warning", {"memory": 2**30}, "b has less than 1 GiB of free memory for each processor"),
    ],
)
def test_a_node_that_differs_is_named_with_what_helps(name: str, status: str, bad: dict[str, Any], words: str) -> None:
    found = judged(a=node(), b=node(**bad))
    assert found[name].status == status
    assert words in found[name].words
    assert status == "note" or found[name].remedy
    others = {key: each.status for key, each in found.items() if key != name}
    assert set(others.values()) == {"ok"}


def test_a_node_that_cannot_answer_is_a_fault_and_the_others_are_judged() -> None:
    found = judged(a=node(), b={"processors": 2, "raised": "ModuleNotFoundError: No module named 'jumar'"})
    assert found["nodes"].words == "b cannot be used: ModuleNotFoundError: No module named 'jumar'."
    assert found["versions"].status == "ok"


def test_a_cluster_that_does_not_answer_is_a_fault_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(
        cluster, "ask", lambda *words, **more: Answer(fault="nothing answers at 127.0.0.1:1 (Connection refused)")
    )
    assert main(["doctor", "--address", "127.0.0.1:1", "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert [(each["name"], each["status"]) for each in found["findings"]] == [("cluster", "fault")]
    assert found["findings"][0]["words"] == "nothing answers at 127.0.0.1:1 (Connection refused)."
    assert main(["doctor", "--address", "127.0.0.1:1"]) == 1
    assert capfd.readouterr().out.splitlines()[-1] == "Jumar cannot train there: 1 fault above."
    assert main(["doctor", "--folder", "runs"]) == 2


def test_a_cluster_is_described_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [{"here": HERE}, node(node="a"), node(node="b", processors=6)]
    monkeypatch.setattr(cluster, "ask", lambda *words, **more: Answer(said))
    first, *others = cluster.cluster("10.0.0.1:6379")
    assert first.words == "Ray at 10.0.0.1:6379 answers: 2 nodes with 8 processors."
    assert {each.name for each in others} == {"versions", "processors", "folder", "memory"}
    monkeypatch.setattr(cluster, "ask", lambda *words, **more: Answer([{"here": HERE}, node(node="a", processors=0)]))
    assert next(iter(cluster.cluster("10.0.0.1:6379"))).status == "fault"


@pytest.mark.slow
def test_machines_of_one_kind_compute_the_same(tmp_path: Path) -> None:
    digests = {ask("canary", seconds=120.0).value("digest") for _ in range(2)}
    assert len(digests) == 1
    assert len(digests.pop()) == 64
    (tmp_path / "word").write_text("w")
    described = on_nodes.describe(str(tmp_path / "word"))
    assert (described["word"], described["locked"], described["fault"]) == ("w", False, None)
    assert described["memory"] > 0
