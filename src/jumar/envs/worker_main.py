"""The program of a worker process: it holds a slice of the environments and answers the parent's requests.

Started by :mod:`jumar.envs.workers` as ``python -m jumar.envs.worker_main CONNECTION MEMORY PARENT``: two inherited
file descriptors and the parent's process id (0 where the process should not be tied to the thread that started it). It
never imports JAX or the user's main module.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import cloudpickle

from jumar.console.streams import steady_streams
from jumar.envs.boundary import explain
from jumar.envs.host import HostStep, SerialEnvironments
from jumar.envs.workers import CLOSED, Answer, Description, Making
from jumar.errors import EnvironmentFault, JumarError, UsageError

_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def main() -> None:
    """Serve until the parent closes the connection or says so."""
    descriptor, memory, parent = map(int, sys.argv[1:])
    # Whoever stops a whole job means the parent, which finishes its iteration and then ends its workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    os.set_inheritable(descriptor, False)
    _end_with_parent(descriptor, parent)
    progress = memoryview(mmap.mmap(memory, 16)).cast("q")
    os.close(memory)
    with steady_streams():
        _serve(Connection(descriptor), progress)


def _end_with_parent(descriptor: int, parent: int) -> None:
    """See to it that this process does not outlive its parent, however busy it is and however the parent ends."""
    threading.Thread(target=_watch, args=(descriptor,), daemon=True).start()
    if parent and sys.platform == "linux":
        # The thread above cannot act while compiled code holds Python's lock; the kernel can.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            _end()


def _watch(descriptor: int) -> None:
    hangup = select.poll()
    hangup.register(descriptor, 0)  # a closed other end is reported without being asked for
    hangup.poll()
    _end()


def _end() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with whatever the environments have started
    os._exit(1)


def _serve(connection: Connection, progress: memoryview) -> None:
    environments: SerialEnvironments | None = None
    while True:
        try:
            request, command, payload = connection.recv()
        except (EOFError, OSError):
            return
        if command == "close":
            if environments is not None:
                environments.close()
            return
        try:
            if command == "make":
                environments = _make(payload, progress)
                answer = Answer(request, _describe(environments))
            else:
                assert environments is not None
                answer = Answer(request, getattr(environments, command)(payload))
        except JumarError as error:
            answer = Answer(request, str(error), type(error).__name__, traceback.format_exc())
        except BaseException as error:
            message = f"a worker process failed: {explain(error)}."
            answer = Answer(request, message, EnvironmentFault.__name__, traceback.format_exc())
        try:
            packed = ForkingPickler.dumps(answer)
        except Exception as error:
            message = _unsendable(answer.value, environments, error)
            packed = ForkingPickler.dumps(Answer(request, message, EnvironmentFault.__name__, traceback.format_exc()))
        try:
            connection.send_bytes(packed)
        except OSError:  # the parent is gone, or an environment has closed the connection with all that was open
            os._exit(CLOSED)


def _unsendable(value: Any, environments: SerialEnvironments | None, error: Exception) -> str:
    """Say what of an answer cannot be sent to the parent: mostly an entry of an environment's info."""
    infos = value.whole_infos if environments is not None and isinstance(value, HostStep) else None
    for row, info in enumerate(infos or ()):
        for key, entry in info.items():
            try:
                ForkingPickler.dumps({key: entry})
            except Exception as own:
                assert environments is not None
                return (
                    f"environment {environments.first_index + row} of {environments.name} gave an info[{key!r}] that cannot be "
                    f"sent from a worker process ({explain(own)}); leave it out of the info, use workers=0, or switch "
                    "copy_info_dict off."
                )
    return f"what a worker process found cannot be sent: {explain(error)}; use workers=0."


def _make(making: Making, progress: memoryview) -> SerialEnvironments:
    sys.path[:] = making.search_path
    try:
        factories: list[Any] = cloudpickle.loads(making.factories)
    except BaseException as error:
        raise UsageError(
            f"what makes {making.name or 'the environment'} cannot be read in a worker process: {explain(error)}."
        ) from error
    return SerialEnvironments(
        factories,
        making.name,
        first_index=making.first_index,
        progress=progress,
        cost=making.cost,
        log=making.log,
        passed_on=(),
    )


def _describe(environments: SerialEnvironments) -> Description:
    return Description(
        environments.name,
        environments.observation_space,
        environments.action_space,
        environments.episode_limit,
        environments.frames,
        environments.left_out,
        environments.hides_mask,
        environments.rewards_goals,
    )


if __name__ == "__main__":
    main()
