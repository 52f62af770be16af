"""Stopping a run from outside: the first signal asks, the second one insists."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
HANGUP = getattr(signal, "SIGHUP", None)
"""Asks, and never insists: a terminal that is closed may send it twice, and systemd may send it after SIGTERM."""
SHOW_CURSOR = b"\x1b[?25h\x1b[0m\n"


class Stopped(Exception):
    """A run was stopped by a signal, after it saved.

    Attributes:
        signal_number: The signal (1 for SIGHUP, 2 for SIGINT, 15 for SIGTERM).
        exit_code: What the process exits with, 128 + the signal's number.
    """

    def __init__(self, signal_number: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(signal_number).name}.")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class StopFlag:
    """Whether somebody asked the run to stop: ``signal`` is the number of the signal, or ``None``; true when set."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


_flags: list[StopFlag] = []
"""Those of the blocks of ``stop_on_signals`` that this process is in."""


def stop_was_asked() -> bool:
    """Whether a signal has asked the run of this process to stop, and it is about to."""
    return any(_flags)


_in_child: list[Callable[[], None]] = []
"""What a process that is forked within such a block does first: signals mean there what they meant before the block."""


_forking = threading.local()
"""Of a thread that forks: which signals were blocked before."""


def _before_fork() -> None:
    # One that comes before the new process has its own handlers would be heard here, and lost there.
    if _in_child:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _after_fork() -> None:
    if (mask := getattr(_forking, "mask", None)) is not None:
        _forking.mask = None
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _leave_to_parent() -> None:
    for undo in reversed(_in_child):
        undo()
    _in_child.clear()
    _flags.clear()
    try:
        _after_fork()
    except KeyboardInterrupt:  # here it would be passed over, and the new process would go on
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_leave_to_parent)


@contextmanager
def stop_on_signals(announce: Callable[[str], None] | None = None) -> Iterator[StopFlag]:
    """Within the block, SIGINT, SIGTERM and SIGHUP set the yielded flag; a second one ends the process at once.

    SIGHUP does so only as the first one; where it is ignored, as under ``nohup``, it stays so. The loop looks at the flag
    between iterations. ``announce`` is called with one line, from another thread, when the first signal comes (default:
    the line goes to standard error). The handlers from before are restored at the end, and in processes that an environment
    forks meanwhile at once. Outside of the main thread, where
    Python allows no handlers, the flag is simply never set.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def ask(signal_number: int, frame: FrameType | None) -> None:
        flag.signal = flag.signal or signal_number

    # Python runs handlers only between two bytecodes of the main thread, which may sit for minutes in a compiled
    # program or in a hung environment. The wake-up socket is written at once, and a thread can act on it meanwhile.
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    watcher = threading.Thread(
        target=_watch, args=(receiving, flag, announce or _to_standard_error), name="jumar-signals", daemon=True
    )
    previous_socket = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    heard = [number for number in STOP_SIGNALS if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN]
    previous_handlers = {number: signal.signal(number, ask) for number in heard}

    def as_before(wakeup: int) -> None:
        for number, handler in previous_handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(wakeup)

    def in_child() -> None:
        with suppress(ValueError):  # forked by another thread, where Python allows no handlers
            as_before(-1)
        for end in (receiving, sending):
            with suppress(OSError):
                end.close()

    _in_child.append(in_child)
    watcher.start()
    _flags.append(flag)
    try:
        yield flag
    finally:
        if flag in _flags:  # not so in a forked process
            _flags.remove(flag)
            _in_child.remove(in_child)
        as_before(previous_socket)
        with suppress(OSError):  # an environment may have closed it, with all that was open
            sending.shutdown(socket.SHUT_RDWR)  # whoever else has it open
            sending.close()
        watcher.join()
        with suppress(OSError):
            receiving.close()


def _watch(receiving: socket.socket, flag: StopFlag, announce: Callable[[str], None]) -> None:
    """Announce the first signal and end the process at the second; return when the other end is closed."""
    asked = False
    while received := _received(receiving):
        for number in received:
            if number not in STOP_SIGNALS or (asked and number == HANGUP):
                continue
            if asked:
                _exit_at_once(number)
            asked = True
            flag.signal = flag.signal or number
            with suppress(Exception):  # a broken terminal must not cost the second signal its meaning
                announce(f"{signal.Signals(number).name}: saving and stopping soon; once more stops at once")


def _received(receiving: socket.socket) -> bytes:
    with suppress(OSError):  # an environment may have closed it
        return receiving.recv(64)
    return b""


def _exit_at_once(signal_number: int) -> None:
    """End the process without cleaning up: what is saved is safe, and the main thread may be beyond reach."""
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, SHOW_CURSOR)
    os._exit(128 + signal_number)


def _to_standard_error(line: str) -> None:
    print(f"jumar: {line}", file=sys.stderr, flush=True)
