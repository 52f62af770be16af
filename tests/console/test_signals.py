"""Stopping by signals: the first one asks, the second one ends the process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from jumar.console.signals import STOP_SIGNALS, StopFlag, Stopped, stop_on_signals


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Signals mean what they do in a terminal: under ``nohup``, or in the background, some are ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("nothing happened for five seconds")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_sets_the_flag_and_is_announced_once(number: signal.Signals):
    said: list[str] = []
    with stop_on_signals(said.append) as flag:
        assert not flag
        assert flag.signal is None
        os.kill(os.getpid(), number)
        wait_until(lambda: bool(said))
        assert flag
        assert flag.signal == number
    assert said == [f"{number.name}: saving and stopping soon; once more stops at once"]


def test_a_hangup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_on_signals() as flag:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert not flag
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_a_hangup_never_insists(first: signal.Signals):
    said: list[str] = []
    with stop_on_signals(said.append) as flag:
        os.kill(os.getpid(), first)
        wait_until(lambda: bool(said))
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
    assert flag.signal == first
    assert len(said) == 1


def test_an_environment_that_closes_all_files_does_not_matter():
    made: list[socket.socket] = []
    original = socket.socketpair

    def pair() -> tuple[socket.socket, socket.socket]:
        made.extend(original())
        return made[0], made[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jumar.console.signals.socket.socketpair", pair)
        with stop_on_signals(lambda _: None):
            for end in made:
                os.close(end.fileno())


def test_handlers_and_wakeup_socket_are_restored_even_after_an_error():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    socket_before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(socket_before)
    try:
        with stop_on_signals():
            assert signal.getsignal(signal.SIGINT) != before[0]
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    assert signal.set_wakeup_fd(socket_before) == socket_before
    assert not [thread for thread in threading.enumerate() if thread.name == "jumar-signals"]


def test_outside_of_the_main_thread_nothing_is_touched():
    flags: list[StopFlag] = []
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with stop_on_signals() as flag:
            flags.append(flag)
            assert signal.getsignal(signal.SIGINT) is before

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags[0].signal is None


def test_other_signals_are_not_taken_for_a_wish_to_stop():
    said: list[str] = []
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with stop_on_signals(said.append) as flag:
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda: bool(seen))
            assert not flag
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert said == []


def test_an_announcement_that_fails_does_not_matter():
    def fail(_: str) -> None:
        raise OSError("the terminal is gone")

    with stop_on_signals(fail) as flag:
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: bool(flag))
    assert flag.signal == signal.SIGINT


def test_exit_codes_are_the_shells():
    assert Stopped(signal.SIGHUP).exit_code == 129
    assert Stopped(signal.SIGINT).exit_code == 130
    assert Stopped(signal.SIGTERM).exit_code == 143
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM."


# The main thread sits in one call into C, on a mutex that it holds already: none of its own Python code can run.
STUCK = """
import ctypes
from jumar.console.signals import stop_on_signals
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
with stop_on_signals():
    print("ready", flush=True)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_stuck_process_at_once(number: signal.Signals):
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert "once more stops at once" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=10) == 128 + number


FORKING = """
import multiprocessing, os, signal, time
from jumar.console.signals import stop_on_signals
signal.signal(signal.SIGINT, signal.default_int_handler)  # a command in the background ignores it
said = []
with stop_on_signals(said.append) as flag:
    helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
    helper.start()
    {act}
    time.sleep(0.3)
    found = flag.signal, len(said)
print(*found, helper.is_alive(), flush=True)
helper.kill()
"""


@pytest.mark.parametrize(
    ("act", "found"),
    [
        ("os.killpg(0, signal.SIGINT); helper.join()", "2 1 False"),
        ("helper.terminate(); helper.join()", "None 0 False"),
        ("pass", "None 0 True"),
    ],
    ids=["Ctrl-C reaches both", "the helper is terminated", "the helper outlives the block"],
)
def test_a_process_that_an_environment_forks_takes_signals_for_itself(act: str, found: str) -> None:
    script = subprocess.run(
        [sys.executable, "-c", FORKING.format(act=act)],
        capture_output=True,
        text=True,
        timeout=50,
        start_new_session=True,
        check=False,
    )
    assert script.stdout.split() == found.split(), script.stderr
    assert script.returncode == 0
