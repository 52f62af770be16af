"""Runners on Ray: actors that hold lanes, reached by one call for each of their parts of a request."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import cloudpickle
import jax
import numpy as np

from jumar.cluster.ray_session import RaySession, open_session
from jumar.collecting.stopping import Abandoned
from jumar.console.signals import stop_was_asked
from jumar.envs.host import Warn
from jumar.errors import UsageError
from jumar.lanes import runner_process
from jumar.lanes.crew import Spread, prove
from jumar.lanes.executor import LaneExecutor
from jumar.lanes.handshake import differences
from jumar.lanes.records import Beat, Failed, LaneMaking, Request, Rows
from jumar.lanes.serving import options, variables
from jumar.lanes.supervisor import PATIENCE, Event, Lost, NoRunners, Part, Patience, Ready, Supervisor

WHERE_TO_LOOK = "Ray's log files on its node (/tmp/ray/session_latest/logs) say why; a full disk there is one reason."
"""What helps where a runner cannot start, whose words nobody has heard."""
END_TIMEOUT = 5.0
"""Seconds in which runners may close their environments at the end."""


class RayCrew:
    """Has runners on Ray step the lanes; a :class:`~jumar.lanes.crew.Crew`.

    Args:
        making: what is needed for it.
        n_lanes: how many lanes there are.
        spread: how many runners, and where Ray is.
        warn: hears of runners that are lost.
        patience: how long they are waited for; none: :data:`PATIENCE`.

    Raises:
        UsageError: what makes the environment cannot be sent, Ray is missing or cannot be joined, or a node is not fit.
        NoRunners: a runner could not start.
    """

    moves_lanes = True

    def __init__(
        self, making: LaneMaking, n_lanes: int, spread: Spread, warn: Warn, patience: Patience | None = None
    ) -> None:
        try:
            sent = cloudpickle.dumps(making)
        except Exception as error:
            raise UsageError(f"what makes {making.name} cannot be sent to another process: {error}.") from error
        self._making, self._warn = making, warn
        self._parts = [tuple(map(int, part)) for part in np.array_split(np.arange(n_lanes), spread.runners)]
        self._session = open_session(spread.address, spread.runners, f"runners={spread.runners}")
        try:
            check_room(self._session, spread.runners)
            self._transport = RayTransport(self._session.ray, making.name, sent)
            self._supervisor = Supervisor(self._transport, spread.runners, making.name, warn, patience or PATIENCE)
            self._supervisor.begin()
        except NoRunners as error:
            self.close()
            raise NoRunners(f"{error} {WHERE_TO_LOOK}") from error
        except BaseException:
            self.close()
            raise

    def answer(self, acting: Any, request: Request) -> Sequence[Rows | Failed]:
        """Have the runners do what a request asks for.

        Raises:
            NoRunners: none is left.
            Abandoned: none is left, as this process and they have been asked to stop.
            NotDeterministic: an environment is not.
        """
        acting = jax.device_get(acting)
        if self._transport.canary is None:
            executor = LaneExecutor(self._making, self._warn)
            self._transport.try_all(acting, prove(executor, self._making, acting))
        try:
            self._transport.broadcast(acting, request)
            return self._supervisor.answer(request.number, self._parts)
        except NoRunners:
            if stop_was_asked():
                raise Abandoned from None
            raise
        except self._session.ray.exceptions.RayError as error:  # the object store is full, or Ray itself has ended
            if stop_was_asked():
                raise Abandoned from None
            raise NoRunners(f"Ray fails: {first_words(error)}") from error

    def close(self) -> None:
        """End the runners, and Ray if it was started for them."""
        if (transport := getattr(self, "_transport", None)) is not None:
            transport.close()
        self._session.close()


def check_room(session: RaySession, runners: int) -> None:
    """Refuse more runners than a cluster has processors. Raises ``UsageError``."""
    there = int(session.ray.cluster_resources().get("CPU", 0))
    if session.address is not None and runners > there:
        raise UsageError(
            f"runners={runners}, but the Ray at {session.address} has {there} processors; each runner takes one: ask for at "
            "most so many, or start more nodes."
        )


class RayTransport:
    """Reaches runners that are Ray actors; a :class:`~jumar.lanes.supervisor.Transport`.

    Args:
        ray: the package, which is connected.
        name: the environment's, for messages.
        making: what makes an executor, pickled.
    """

    def __init__(self, ray: Any, name: str, making: bytes) -> None:
        self._ray, self._name = ray, name
        ray.cloudpickle.register_pickle_by_value(runner_process)
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(runner_process.RunnerProcess)
        self._making = ray.put(making)
        self._search_path = tuple(sys.path)
        self._here = runner_process.look()
        self._handles: dict[int, Any] = {}
        self._where: dict[int, str] = {}
        self.processes: dict[int, int] = {}
        """The process id of each runner, on its node."""
        self._waiting: dict[Any, tuple[int, str]] = {}
        """What is waited for: the runner, and the call."""
        self.canary: tuple[Any, bytes] | None = None
        self._acting: Any = None
        self._request: Request | None = None

    # -- what a supervisor does ----------------------------------------------------------------------------------------------

    def start(self, runner: int) -> None:
        """Begin to make a runner, and to compare it with this process."""
        handle = self._actor.options(scheduling_strategy="SPREAD").remote()
        self._handles[runner] = handle
        self._waiting[handle.look.remote(self._search_path)] = runner, "look"

    def ask(self, runner: int, part: Part, known: frozenset[int]) -> None:
        """Ask for a part of the request that was broadcast last."""
        request = self._request
        assert request is not None
        some = slice(part.lanes[0], part.lanes[-1] + 1)
        own = request._replace(
            lanes=tuple(
                record._replace(actions=None) if record.lane in known else record for record in request.lanes[some]
            ),
            carry=jax.tree.map(lambda x: x[some] if np.ndim(x) else x, request.carry),
            start=request.start[some],
        )
        call = self._handles[runner].answer.options(num_returns="streaming").remote(self._acting, own)
        self._waiting[call] = runner, "answer"

    def end(self, runner: int) -> None:
        """End a runner at once, and forget what it was asked."""
        self._waiting = {ref: (i, call) for ref, (i, call) in self._waiting.items() if i != runner}
        if (handle := self._handles.pop(runner, None)) is not None:
            with contextlib.suppress(Exception):  # it may be gone already
                self._ray.kill(handle)

    def events(self, timeout: float) -> Sequence[Event]:
        """Return what has been heard."""
        waiting = list(self._waiting)
        if not waiting:
            time.sleep(timeout)
            return ()
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=timeout)
        if ready and len(waiting) > 1:
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        events = [self._heard(ref, *self._waiting.pop(ref)) for ref in ready if ref in self._waiting]
        return [event for event in events if event is not None]

    def now(self) -> float:
        """Return the time."""
        return time.monotonic()

    # -- what a crew does ------------------------------------------------------------------------------------------------------

    def broadcast(self, acting: Any, request: Request) -> None:
        """Have a request ready of which parts are asked for, and put what is acted by where all runners find it."""
        self._acting, self._request = self._ray.put(acting), request

    def try_all(self, acting: Any, expected: bytes) -> None:
        """Have all runners, and those made later, do a trial whose digest must be ``expected``.

        Raises:
            UsageError: one of them does something else.
        """
        self.canary = self._ray.put(acting), expected
        calls = {handle.canary.remote(self.canary[0]): runner for runner, handle in self._handles.items()}
        for call, runner in calls.items():
            try:
                found = self._ray.get(call, timeout=PATIENCE.start)
            except self._ray.exceptions.RayError:
                continue  # that it is lost, or hangs, is heard when it is asked
            if found != expected:
                raise UsageError(f"{self._computes_otherwise(runner)}.")

    def close(self) -> None:
        """End all runners; those that have nothing to do close their environments before."""
        busy = {runner for runner, _ in self._waiting.values()}
        with contextlib.suppress(Exception):  # Ray may be gone
            ending = [handle.end.remote() for runner, handle in self._handles.items() if runner not in busy]
            if ending:
                self._ray.wait(ending, num_returns=len(ending), timeout=END_TIMEOUT)
        for runner in list(self._handles):
            self.end(runner)

    # -- what is heard -------------------------------------------------------------------------------------------------------

    def _heard(self, ref: Any, runner: int, call: str) -> Event | None:
        try:
            value = self._ray.get(next(ref) if call == "answer" else ref)
        except StopIteration:
            return self._lost(runner, Lost("it ended its answer in the middle"))
        except self._ray.exceptions.RayTaskError as error:
            return self._lost(runner, Lost(f"its code raised {_last_line(error)}"))
        except self._ray.exceptions.RayError as error:
            return self._lost(runner, Lost(why_lost(error)))
        if call == "answer":
            if isinstance(value, Beat):
                self._waiting[ref] = runner, call
            return Event(runner, value)
        return self._started(runner, call, value)

    def _started(self, runner: int, call: str, value: Any) -> Event | None:
        """Take the next step of a handshake."""
        handle = self._handles[runner]
        if call == "look":
            self._where[runner], self.processes[runner] = value["node"], int(value["pid"])
            if words := differences(self._here, value):
                return self._lost(runner, Lost(f"node {value['node']} cannot take part: {words}", unfit=True))
            self._waiting[handle.begin.remote(self._making, variables(), options())] = runner, "begin"
            return None
        if call == "begin":
            if value is not None:
                where = self._where[runner]
                return self._lost(runner, Lost(f"node {where} cannot make {self._name}: {value}", unfit=True))
            if self.canary is not None:
                self._waiting[handle.canary.remote(self.canary[0])] = runner, "canary"
                return None
        elif self.canary is not None and value != self.canary[1]:
            return self._lost(runner, Lost(self._computes_otherwise(runner), unfit=True))
        return Event(runner, Ready(self._where[runner]))

    def _lost(self, runner: int, lost: Lost) -> Event:
        self.end(runner)
        return Event(runner, lost)

    def _computes_otherwise(self, runner: int) -> str:
        return (
            f"node {self._where[runner]} does not compute as this one: {self._name} and the policy do something else there "
            "from the same seed; install the same packages and data on all nodes, and where processors differ, start with "
            "XLA_FLAGS=--xla_cpu_max_isa=AVX2, say"
        )


def first_words(error: Exception) -> str:
    """Return an error of Ray's in one line."""
    text = " ".join(str(error).split())
    return text if len(text) < LONGEST else text[:LONGEST] + "..."


def why_lost(error: Exception) -> str:
    """Return in words why a runner was lost, as Ray says it."""
    text = " ".join(str(error).split())
    if detail := re.search(r"Worker exit detail: ([^.]*)", text):
        found = detail[1].strip()
        return "its process ended" if "connection error" in found else f"its process ended ({found})"
    if "node" in text.lower() and "died" in text.lower():
        return "its node was lost"
    return first_words(error)


LONGEST = 300
"""Characters of an error of Ray's that are repeated."""


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:LONGEST] if lines else type(error).__name__
