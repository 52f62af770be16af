"""The examination of a Ray cluster: whether comparisons, sweeps and runners can use it, and would compute the same there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jumar.cluster.versions import other_versions
from jumar.text import counted
from jumar.verification.doctor.children import ask
from jumar.verification.doctor.examine import GIB, LEAST_MEMORY
from jumar.verification.doctor.finding import Finding

ANSWER = 300.0
"""Seconds that all nodes together have: each imports Ray, Jumar and JAX, and compiles a program."""
MOST_NAMED = 5

Answers = Mapping[str, Mapping[str, Any]]
"""What nodes said, by name."""


def cluster(address: str, place: Path = Path("runs")) -> Iterator[Finding]:
    """Look at the cluster whose head is at ``address``, and at the folder of the runs as its nodes see it."""
    folder = (place if place.exists() else place.absolute().parent).absolute()
    answer = ask("cluster", address, str(folder), seconds=ANSWER)
    if answer.fault is not None:
        yield Finding(
            "cluster", "fault", answer.fault.removesuffix(".") + ".", "jumar's page about clusters says how one is made"
        )
        return
    found = {each["node"]: each for each in answer.said if "node" in each}
    processors = sum(each["processors"] for each in found.values())
    words = f"Ray at {address} answers: {counted(len(found), 'node')} with {counted(processors, 'processor')}"
    if processors == 0:
        yield Finding(
            "cluster",
            "fault",
            f"{words}, so nothing can be trained there.",
            "ray start --address=HOST:PORT on a machine",
        )
    else:
        yield Finding("cluster", "ok", f"{words}.", data={"nodes": list(found), "processors": processors})
    yield from judge_nodes(found, answer.value("here", {}), folder)


def judge_nodes(found: Answers, here: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """Say what is wrong with the nodes.

    Args:
        found: what each said; ``raised`` in place of all else where it could not answer.
        here: what this machine says of itself.
        folder: of the runs.
    """
    silent = {node: str(each["raised"]) for node, each in found.items() if "raised" in each}
    for node, words in silent.items():
        yield Finding(
            "nodes",
            "fault",
            f"{node} cannot be used: {words.removesuffix('.')}.",
            "install the same Jumar there, with the extra ray",
        )
    answers = {node: each for node, each in found.items() if node not in silent}
    if not answers:
        return
    yield from _versions(answers, here)
    yield from _results(answers, here)
    yield from _folder(answers, folder)
    yield from _memory(answers)


def _versions(answers: Answers, here: Mapping[str, Any]) -> Iterator[Finding]:
    differing = {
        node: words
        for node, each in answers.items()
        if (words := other_versions(here["versions"], each["versions"])) is not None
    }
    for node, words in differing.items():
        yield Finding("versions", "fault", f"{node} has {words}.", "install the same versions on all nodes")
    if not differing:
        shown = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
        yield Finding("versions", "ok", f"All nodes have {shown}.", data=here["versions"])


def _results(answers: Answers, here: Mapping[str, Any]) -> Iterator[Finding]:
    failed = {node: each["fault"] for node, each in answers.items() if each["fault"] is not None}
    for node, fault in failed.items():
        yield Finding(
            "processors", "fault", f"JAX cannot compute on {node}: {fault.removesuffix('.')}.", "jumar doctor there"
        )
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for node, each in {**answers, "this machine": here}.items():
        kinds[_kind(each)].append(node)
    digests = {each["digest"] for node, each in answers.items() if node not in failed} | {here["digest"]}
    shown = "; ".join(f"{_named(nodes)}: {kind}" for kind, nodes in kinds.items())
    if len(digests) > 1:
        yield Finding(
            "processors", "warning", "A small program gives other last bits on some nodes, so results depend on where a run "
            f"is trained ({shown}).", "XLA_FLAGS=--xla_cpu_max_isa=AVX2 on this machine and all nodes, or nodes of one kind",
        )  # fmt: skip
    elif len(kinds) > 1:
        yield Finding(
            "processors", "note", "Not all nodes have the same processor, and a small program gives the same bits on all "
            f"({shown}).",
            "XLA_FLAGS=--xla_cpu_max_isa=AVX2 on this machine and all nodes makes it likely for all programs",
        )  # fmt: skip
    elif not failed:
        yield Finding(
            "processors",
            "ok",
            f"All nodes have the processor of this machine, {next(iter(kinds))}, and compute the same.",
        )


def _folder(answers: Answers, folder: Path) -> Iterator[Finding]:
    blind = [node for node, each in answers.items() if not each["seen"]]
    unlocked = [node for node, each in answers.items() if each["seen"] and not each["locked"]]
    if blind:
        yield Finding(
            "folder", "fault", f"{_named(blind)} {'does' if len(blind) == 1 else 'do'} not see {folder}, where runs are kept.",
            "a file system that all nodes share, under the same path; comparisons and sweeps are kept there with --out",
        )  # fmt: skip
    elif unlocked:
        yield Finding(
            "folder", "note", f"All nodes see {folder}, but its locks do not reach {_named(unlocked)}: runs are trained beside "
            "their folders and renamed into place.",
        )  # fmt: skip
    else:
        yield Finding("folder", "ok", f"All nodes see {folder}, and its locks.")


def _memory(answers: Answers) -> Iterator[Finding]:
    tight = {
        node: each["memory"]
        for node, each in answers.items()
        if each["memory"] is not None and each["memory"] < LEAST_MEMORY * max(1, each["processors"])
    }
    shown = ", ".join(
        f"{node} {each['memory'] / GIB:,.1f} GiB" for node, each in answers.items() if each["memory"] is not None
    )
    if tight:
        least = min(int(left // LEAST_MEMORY) for left in tight.values())
        yield Finding(
            "memory", "warning", f"{_named(list(tight))} {'has' if len(tight) == 1 else 'have'} less than 1 GiB of free memory "
            f"for each processor, and a run takes some 0.6 ({shown}).",
            f"start Ray there with fewer processors (ray start --num-cpus={max(1, least)}), or give runs more (--processors)",
        )  # fmt: skip
    elif shown:
        yield Finding("memory", "ok", f"Free memory: {shown}.")


def _kind(each: Mapping[str, Any]) -> str:
    return f"{each['processor']} ({', '.join(each['sets'] or ()) or 'no vector instructions known'})"


def _named(nodes: Sequence[str]) -> str:
    shown = ", ".join(nodes[:MOST_NAMED])
    return shown + (f" and {len(nodes) - MOST_NAMED} more" if len(nodes) > MOST_NAMED else "")
