"""Jobs as tasks of a Ray cluster, a process for each: the machine that begins them is the one that watches them.

A task holds the job's process by a pipe, as this process would: when Ray ends the task, because this process or the node's Ray
is gone, the job saves and stops.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jumar.cluster.nodes import Node, ask_each, first_words, nodes
from jumar.cluster.ray_session import RaySession
from jumar.cluster.versions import SAME_VERSIONS, other_versions, versions
from jumar.errors import JumarError, UsageError
from jumar.studies.attempts import PROBE, Files
from jumar.studies.executor import Failure, Task, Warn, Words
from jumar.studies.given import GivenJobs
from jumar.studies.on_node import carry_out
from jumar.text import counted
from jumar.xla.processor import processor

PAUSE = 0.5
"""Seconds between two looks at the tasks."""
ALIVE = 5.0
"""Seconds between two looks at whether the cluster's head is there."""
SILENT = 3
"""How many looks in a row find nothing where a head is gone. Ray itself ends this process after a minute."""
ANSWER = 120.0
"""Seconds that each node has to say what it is: it starts a process for it, and imports Ray and Jumar."""


@dataclass
class RayTask:
    """A job that was given to a cluster."""

    tasks: RayTasks
    question: Any
    files: Files
    run: Path
    _failure: Failure | None = field(default=None, init=False)
    _over: bool = field(default=False, init=False)

    def over(self) -> bool:
        """Whether the task has ended, or its node has."""
        self.tasks.look_at_head()
        if not self._over and self.tasks.ray.wait([self.question], timeout=0)[0]:
            self._over, self._failure = True, self._answer()
        return self._over

    def failure(self) -> Failure | None:
        """Return why it failed; ``None`` if it was done."""
        return self._failure

    def let_go(self) -> None:
        """Let the job save and stop."""
        self.files.let_go()

    def close(self) -> None:
        """Tidy up after a task that is over; let go one that is not."""
        if self._over:
            self.tasks.given.tidy(self.files, self.run)
        else:
            self.let_go()

    def _answer(self) -> Failure | None:
        errors = self.tasks.ray.exceptions
        try:
            answer: Mapping[str, Any] | None = self.tasks.ray.get(self.question)
        except errors.RayTaskError as error:
            return Failure(f"the node could not begin it: {first_words(error)}.")
        except errors.OutOfMemoryError:
            return Failure("Ray ended it, as its node was short of memory.", lost=True)
        except errors.RayError as error:
            what = "its node died" if isinstance(error, errors.NodeDiedError) else "its process on the node died"
            return Failure(f"{what}.", lost=True)
        return None if answer is None else Failure(**answer)


class RayTasks:
    """A Ray cluster as an :class:`~jumar.studies.executor.Executor`.

    Args:
        session: the cluster.
        given: where jobs are written down.
        each: how many processors each job has.
        warn: is told of nodes whose results may differ in their last bits.

    Raises:
        UsageError: a node does not answer, does not see the study's folder or has other versions; nothing was begun.
    """

    pause = PAUSE
    outlives = False

    def __init__(self, session: RaySession, given: GivenJobs, each: int, warn: Warn) -> None:
        self.ray, self.given = session.ray, given
        self._session, self._each, self._warn = session, each, warn
        self._looked, self._silent = time.monotonic(), 0
        able = [node for node in nodes(session) if node.processors >= each]
        if not able:
            raise UsageError(
                f"no node of the cluster has {counted(each, 'processor')} for a job; ask for fewer with --processors, or start "
                "nodes that have them."
            )
        self._check(able)
        self._able = able
        self._do = session.ray.remote(do)

    @property
    def room(self) -> int:
        """As many jobs as the processors of the nodes are enough for."""
        return sum(node.processors // self._each for node in self._able)

    def shares(self, parts: int, *, even: bool) -> list[tuple[int, ...]]:
        """Return the same number of processors for each job; the nodes choose which."""
        return [tuple(range(self._each))] * parts

    def start(self, name: str, words: Words, run: Path, log: Path, processors: tuple[int, ...]) -> Task:
        """Give a job to the cluster, which begins it where so many processors are free."""
        files = self.given.write(self.given.place(), name, words(), run, log, len(processors))
        options = {"num_cpus": len(processors), "max_retries": 0, "name": name}
        question = self._do.options(**options).remote(str(files.place), files.index)
        return RayTask(self, question, files, run)

    def look_at_head(self) -> None:
        """Say where the cluster's head is gone, before Ray ends this process without a word.

        Raises:
            JumarError: it does not answer any more.
        """
        if time.monotonic() - self._looked < ALIVE:
            return
        host, _, port = self.ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ALIVE).close()
            self._silent = 0
        except OSError as error:
            self._silent += 1
            if self._silent >= SILENT:
                words = f"Ray at {host}:{port} is gone ({error.strerror or error})"
                self._warn(f"{words}; what the runs saved is safe, and the same command goes on with them.")
                raise JumarError(f"{words}.") from None
        finally:
            self._looked = time.monotonic()

    def _check(self, able: Sequence[Node]) -> None:
        """Ask every node whether it sees the folder, and whether it would compute the same."""
        place = self.given.place()
        seen = place / PROBE
        word = self.given.new_probe(seen)
        answers = ask_each(self._session, able, look, str(seen), seconds=ANSWER)
        mine, others = processor(), []
        for node, answer in answers.items():
            if isinstance(answer, Exception):
                raise UsageError(f"the node {node} cannot be used: {first_words(answer).removesuffix('.')}.")
            if answer["word"] != word:
                raise UsageError(
                    f"the node {node} does not see {seen.parent.parent.parent}; runs must be kept on a file system that all "
                    "nodes share: give a folder there with --out."
                )
            if (differing := other_versions(versions(), answer["versions"])) is not None:
                raise UsageError(f"the node {node} has {differing}; {SAME_VERSIONS}")
            if answer["processor"] != mine:
                others.append(f"{node}: {answer['processor']}")
        if others:
            self._warn(
                f"not all nodes have the processor of this machine, so results may depend on where a run is trained "
                f"({'; '.join(others[:3])}; here: {mine})."
            )


def do(place: str, index: int) -> dict[str, Any] | None:
    """Do a job that was written down; return why it failed as plain data. Ray runs this on a node."""
    failure = carry_out(Path(place), index)
    return None if failure is None else failure.to_json()


def look(path: str) -> dict[str, Any]:
    """Return what a node sees of a file, and what it would compute with. Ray runs this on a node."""
    try:
        word: str | None = Path(path).read_text()
    except OSError:
        word = None
    return {"word": word, "versions": versions(), "processor": processor()}
