"""Host environments in worker processes, for environments whose steps are slow, may hang, or may crash.

Each worker holds a contiguous slice of the environments as :class:`~jumar.envs.host.SerialEnvironments`, so that
results are the same, bit for bit, as in one process. Parent and worker speak over a private socket pair; the user's
main module is not imported again. A worker has a process group of its own, out of reach of the terminal's Ctrl-C, and
ends when its parent does. One that dies or does not answer in time is named with its environments, and not started
again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium import Space

from jumar.envs import batches
from jumar.envs.batches import Batch
from jumar.envs.boundary import Boundary
from jumar.envs.goals import Goals
from jumar.envs.host import HostStep
from jumar.envs.step_costs import GIVEN, Cost
from jumar.errors import EnvironmentFault, JumarError, UnsupportedEnvironment, UsageError
from jumar.spaces import describe_space, same_space

START_TIMEOUT = 120.0  # seconds; importing a user's packages on a busy machine takes long
CLOSE_TIMEOUT = 5.0  # seconds
CLOSED = 86
"""Exit code of a worker that can no longer answer."""
_POLL = 1.0  # seconds between looks at processes whose own children hold their end of the connection open
GO_ON = "`jumar resume` goes on from the last checkpoint."


class WorkerTraceback(Exception):
    """The traceback of an exception in a worker process, as text: the cause of the fault raised in the parent."""

    def __str__(self) -> str:
        """Show it as it was printed there."""
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Making:
    """What a worker is told first: ``factories`` is a cloudpickled list of callables, one for each environment."""

    name: str
    first_index: int
    factories: bytes
    search_path: tuple[str, ...]
    cost: Cost
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """What a worker says about its environments once they are made."""

    name: str
    observation_space: Space
    action_space: Space
    episode_limit: int | None
    frames: int
    left_out: tuple[str, ...]
    hides_mask: bool
    rewards_goals: bool


@dataclass(frozen=True)
class Answer:
    """What a worker sends back to a numbered request: a value, or the class name and message of an error."""

    request: int
    value: Any = None
    error: str | None = None
    traceback: str = ""


_ERRORS: Mapping[str, type[JumarError]] = {
    kind.__name__: kind for kind in (UsageError, UnsupportedEnvironment, EnvironmentFault)
}


class WorkerEnvironments:
    """N environments in worker processes; a :class:`~jumar.envs.host.HostEnvironments`.

    ``make`` holds a callable for each environment; they travel to the workers by cloudpickle. ``timeout`` is how many
    seconds one step or reset of all environments may take. ``cost`` says what a step costs, ``log`` which entries of ``info``
    are kept as numbers. ``remedy`` is what to do when a worker is lost, the end of a sentence.

    Raises:
        UsageError: where an environment cannot be made, or spaces are unsupported or differ.
        EnvironmentFault: where making one raises, or a worker does not start.
    """

    resets_take_steps = False
    never_costs = False

    def __init__(
        self,
        make: Sequence[Callable[[], gym.Env]],
        n_workers: int,
        name: str = "",
        *,
        cost: Cost = GIVEN,
        log: Sequence[str] = (),
        timeout: float = 60.0,
        remedy: str = GO_ON,
    ) -> None:
        if n_workers < 1:
            raise UsageError(f"the number of worker processes is {n_workers}; it must be at least 1.")
        self.n_envs = len(make)
        self.name = name or "the environment"
        self._timeout = timeout
        self._remedy = remedy
        self._request = 0
        self._workers: list[_Worker] = []
        # Also when this object is forgotten, and when the interpreter ends.
        self._finalizer = weakref.finalize(self, _close_all, self._workers, os.getpid())
        try:
            for rows in np.array_split(np.arange(self.n_envs), min(n_workers, self.n_envs)):
                self._workers.append(_Worker(range(int(rows[0]), int(rows[-1]) + 1)))
            descriptions = self._start(make, name, cost, tuple(log))
        except BaseException:
            self.close()
            raise
        first = descriptions[0]
        self.name = first.name
        self.observation_space = first.observation_space
        self.action_space = first.action_space
        self.episode_limit, self.frames, self.left_out = first.episode_limit, first.frames, first.left_out
        self.hides_mask, self.rewards_goals = first.hides_mask, first.rewards_goals
        self._progress = [-1, 0]
        self._boundary = Boundary(self.name, self.n_envs, self.observation_space, self.action_space, self._progress)

    def _start(
        self, make: Sequence[Callable[[], gym.Env]], name: str, cost: Cost, log: tuple[str, ...]
    ) -> list[Description]:
        makings = []
        for worker in self._workers:
            try:
                factories = cloudpickle.dumps([make[index] for index in worker.indexes])
            except Exception as error:
                raise UsageError(f"what makes {self.name} cannot be sent to a worker process: {error}.") from error
            makings.append(Making(name, worker.indexes[0], factories, tuple(sys.path), cost, log))
        descriptions = self._ask("make", makings, max(self._timeout, START_TIMEOUT))
        first = descriptions[0]
        for worker, own in zip(self._workers, descriptions, strict=True):
            for mine, common in (
                (own.observation_space, first.observation_space),
                (own.action_space, first.action_space),
            ):
                if not same_space(mine, common):
                    raise UsageError(
                        f"environment {worker.indexes[0]} of {own.name} has the space {describe_space(mine)}, "
                        f"the first one {describe_space(common)}; all must have the same."
                    )
        return descriptions

    def reset(self, seeds: Sequence[int]) -> tuple[Batch, np.ndarray | None]:
        """Start all environments anew, environment i from ``seeds[i]`` alone; return observations and action masks."""
        if len(seeds) != self.n_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.n_envs} environments")
        self._progress[1] = 0
        parts = self._ask("reset", [[int(seeds[i]) for i in worker.indexes] for worker in self._workers])
        observations, masks = zip(*parts, strict=True)
        return batches.concatenate(observations), self._join(masks, True)

    def step(self, actions: Any) -> HostStep:
        """Act once in every environment; see :class:`~jumar.envs.host.HostEnvironments`."""
        self._progress[1] += 1
        actions = np.asarray(actions)
        self._boundary.prepare_actions(actions)  # a bad one is refused before any environment moves
        parts = self._ask("step", [actions[worker.indexes[0] : worker.indexes[-1] + 1] for worker in self._workers])
        observations = batches.concatenate([part.observations for part in parts])
        episode_ended = any(part.successors is not part.observations for part in parts)
        return HostStep(
            observations,
            np.concatenate([part.rewards for part in parts]),
            np.concatenate([part.terminated for part in parts]),
            np.concatenate([part.truncated for part in parts]),
            batches.concatenate([part.successors for part in parts]) if episode_ended else observations,
            np.concatenate([part.valid for part in parts]),
            self._join([part.action_masks for part in parts], True),
            self._join([part.costs for part in parts], 0.0),
            next((part.complaint for part in parts if part.complaint), None),
            *_joined_infos(parts),
            None if parts[0].whole_infos is None else [info for part in parts for info in part.whole_infos or ()],
        )

    def rewards_of(self, goals: Goals) -> Any:
        """Ask the first worker; see :class:`~jumar.envs.host.HostEnvironments`."""
        return self._ask("rewards_of", [goals], workers=self._workers[:1])[0]

    def keep_infos(self, wanted: bool) -> None:
        """Let steps come with whole infos, or not."""
        self._ask("keep_infos", [wanted] * len(self._workers))

    def _join(self, parts: Sequence[np.ndarray | None], missing: bool | float) -> np.ndarray | None:
        """Join what some workers' environments may not have given (yet), as one process would have filled it."""
        given = next((part for part in parts if part is not None), None)
        if given is None:
            return None
        lengths = [len(worker.indexes) for worker in self._workers]
        return np.concatenate(
            [
                np.full((length, *given.shape[1:]), missing, given.dtype) if part is None else part
                for part, length in zip(parts, lengths, strict=True)
            ]
        )

    def close(self) -> None:
        """Close the environments and end the workers; one that does not end by itself is killed."""
        self._finalizer()

    def _ask(
        self,
        command: str,
        payloads: Sequence[Any],
        timeout: float | None = None,
        workers: Sequence[_Worker] | None = None,
    ) -> list[Any]:
        """Send every worker (or some) its payload, then gather the answers in the order of the workers."""
        workers = self._workers if workers is None else workers
        if not self._finalizer.alive:
            raise EnvironmentFault(f"the worker processes of {self.name} have ended; make the environments anew.")
        timeout = self._timeout if timeout is None else timeout
        self._request += 1
        for worker, payload in zip(workers, payloads, strict=True):
            with contextlib.suppress(OSError):  # a dead worker is found and named below
                worker.connection.send((self._request, command, payload))
        answers = self._gather(command, timeout, workers)
        for answer in answers:
            if answer.error is not None:
                raise _ERRORS.get(answer.error, EnvironmentFault)(answer.value) from WorkerTraceback(answer.traceback)
        return [answer.value for answer in answers]

    def _gather(self, command: str, timeout: float, workers: Sequence[_Worker]) -> list[Answer]:
        deadline = time.monotonic() + timeout
        answers: dict[int, Answer] = {}
        waiting = {worker.connection: worker for worker in workers}
        while waiting:
            left = deadline - time.monotonic()
            for connection in wait(list(waiting), max(0.0, min(left, _POLL))):
                assert isinstance(connection, Connection)
                worker = waiting[connection]
                try:
                    answer = connection.recv()
                except (EOFError, OSError) as error:
                    raise self._death(worker, command) from error
                if answer.request == self._request:  # an older one was given up by an interrupted call
                    answers[worker.indexes[0]] = answer
                    del waiting[connection]
            for worker in waiting.values():
                if worker.process.poll() is not None and not worker.connection.poll():
                    raise self._death(worker, command)
            if waiting and left <= 0:
                raise self._silence(next(iter(waiting.values())), command, timeout)
        return [answers[worker.indexes[0]] for worker in workers]

    def _death(self, worker: _Worker, command: str) -> EnvironmentFault:
        how = worker.exit_reason()
        held = worker.describe_environments()
        index, step = worker.progress
        doing = _doing(command, index, step)
        self.close()
        return EnvironmentFault(
            f"the worker process of {held} of {self.name} died ({how}) while {doing}; {self._remedy}"
        )

    def _silence(self, worker: _Worker, command: str, timeout: float) -> EnvironmentFault:
        index, step = worker.progress
        calls = {"make": "its construction", "reset": "its reset", "rewards_of": "compute_reward"}
        call = calls.get(command, f"step {step}")
        worker.kill()
        self.close()
        who = f"environment {index} of {self.name}" if index >= 0 else f"a worker process of {self.name}"
        return EnvironmentFault(
            f"{who} did not return from {call} within {timeout:g} s and was stopped; {self._remedy}"
        )


def _joined_infos(parts: Sequence[HostStep]) -> tuple[np.ndarray | None, dict[str, str] | None, tuple[str, ...]]:
    """Join the logged entries of ``info`` of all workers, what is wrong with them, and which numbers there are.

    Where none are logged there is nothing: ``None``, ``None`` and no names.
    """
    infos = [part.infos for part in parts if part.infos is not None]
    if not infos:
        return None, None, ()
    complaints = [part.info_complaints or {} for part in parts]
    names = tuple(dict.fromkeys(name for part in parts for name in part.info_numbers))
    return np.concatenate(infos, axis=1), {key: words for each in complaints for key, words in each.items()}, names


def _doing(command: str, index: int, step: int) -> str:
    if index < 0:
        return "starting"
    if command == "rewards_of":
        return "computing rewards"
    verb = {"make": "making", "reset": "resetting"}.get(command, "stepping")
    return f"{verb} environment {index}" + (f" at step {step}" if command == "step" else "")


class _Worker:
    """One process, the connection to it, and the memory in which it writes what it is stepping."""

    def __init__(self, indexes: range) -> None:
        self.indexes = indexes
        own_end, other_end = socket.socketpair()
        with other_end, tempfile.TemporaryFile() as shared:
            shared.truncate(16)
            self._memory = mmap.mmap(shared.fileno(), 16)
            self.progress = memoryview(self._memory).cast("q")
            self.progress[0] = -1
            descriptors = (other_end.fileno(), shared.fileno())
            # Linux can tie the worker's life to the thread that starts it, which serves only if that is the main one.
            parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
            command = [sys.executable, "-P", "-m", "jumar.envs.worker_main", *map(str, (*descriptors, parent))]
            self.process = subprocess.Popen(
                command,
                pass_fds=descriptors,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what users' environments print must not mix with the command's own output
                process_group=0,
            )
        self.connection = Connection(own_end.detach())

    def describe_environments(self) -> str:
        first, last = self.indexes[0], self.indexes[-1]
        return f"environment {first}" if first == last else f"environments {first} to {last}"

    def exit_reason(self) -> str:
        """Say how the process ended; it is killed if it has only closed its connection."""
        try:
            code = self.process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            return "its connection closed"
        if code == CLOSED:
            return "its environments closed its connection"
        if code >= 0:
            return f"exit code {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def kill(self) -> None:
        """End the process and what it has started, and take note of its end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def _environment() -> dict[str, str]:
    """Return the parent's environment variables, with the folder Jumar lies in on the search path."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": package + (os.pathsep + path if path else "")}


def _close_all(workers: Sequence[_Worker], owner: int) -> None:
    """Ask all workers to end, then see that they do."""
    if os.getpid() != owner:  # a fork of the process that started them
        return
    for worker in workers:
        with contextlib.suppress(OSError, ValueError):
            worker.connection.send((0, "close", None))
    deadline = time.monotonic() + CLOSE_TIMEOUT
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        worker.kill()
        worker.connection.close()
