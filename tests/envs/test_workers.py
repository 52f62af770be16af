"""Worker processes: the same results as in one process, and every way to die is named and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faulty
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

import jumar
from jumar.envs.host import SerialEnvironments, words_on_mask
from jumar.envs.workers import WorkerEnvironments
from jumar.errors import EnvironmentFault, UsageError


@contextmanager
def workers(make: Any, n_workers: int = 2, name: str = "x", **options: Any) -> Iterator[WorkerEnvironments]:
    envs = WorkerEnvironments(make, n_workers, name, **options)
    try:
        yield envs
    finally:
        envs.close()


def process_ids(envs: WorkerEnvironments) -> list[int]:
    return [worker.process.pid for worker in envs._workers]


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie whose new parent has not noticed yet is dead, too.
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def eventually(condition: Callable[[], bool]) -> bool:
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.05)
    return False


def flat(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in flat(tree[key])]
    if isinstance(tree, tuple):
        return [leaf for child in tree for leaf in flat(child)]
    return [tree]


def assert_same_bits(first: Any, second: Any) -> None:
    for own, other in zip(flat(first), flat(second), strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            assert (own.dtype, own.shape) == (other.dtype, other.shape)
            assert own.tobytes() == other.tobytes()


def test_results_equal_those_of_one_process_bit_for_bit() -> None:
    # Only environment 4, in the last worker, ever gives a cost.
    makers = [lambda i=i: faulty.Rich(costly=i == 4) for i in range(5)]
    serial = SerialEnvironments(makers, "rich")
    random = np.random.default_rng(0)
    with workers(makers, 2, "rich") as envs:
        assert (envs.n_envs, envs.name, envs.episode_limit) == (5, "rich", None)
        for seeds in ([1, 2, 3, 4, 5], [9, 8, 7, 6, 5]):
            assert_same_bits(envs.reset(seeds), serial.reset(seeds))
            ended = False
            for _ in range(40):
                actions = random.integers(0, [3, 2], (5, 2))
                own, other = envs.step(actions), serial.step(actions)
                assert_same_bits(own, other)
                ended |= bool(own.terminated.any() and own.truncated.any())
            assert ended
        with pytest.raises(
            EnvironmentFault, match=r"environment 3 of rich was given a bad action at step 41: \[1\] is 2"
        ):
            envs.step(np.array([[0, 0]] * 3 + [[0, 2]] + [[0, 0]]))


@pytest.mark.parametrize("fault", ["raise", "nan"])
def test_faults_say_the_same_as_in_one_process(fault: str) -> None:
    makers = [lambda i=i: faulty.Faulty(fault, at=2 if i == 2 else -1) for i in range(3)]
    sentences, causes = [], []
    with workers(makers) as envs:
        for each in (envs, SerialEnvironments(makers, "x")):
            each.reset([0, 1, 2])
            each.step([0, 0, 0])
            with pytest.raises(EnvironmentFault, match=r"environment 2 of x .* at step 2") as caught:
                each.step([0, 0, 0])
            sentences.append(str(caught.value))
            causes.append(str(caught.value.__cause__))
    assert sentences[0] == sentences[1]
    assert "Traceback (most recent call last)" in causes[0]
    assert causes[1] in causes[0]


def test_a_worker_that_exits_is_named_with_what_it_was_doing() -> None:
    makers = [lambda i=i: faulty.Faulty("exit", at=2 if i == 3 else -1) for i in range(4)]
    with workers(makers) as envs:
        processes = process_ids(envs)
        envs.reset([0] * 4)
        envs.step([0] * 4)
        with pytest.raises(
            EnvironmentFault,
            match=r"process of environments 2 to 3 of x died \(exit code 7\) while stepping environment 3 at step 2;.*resume",
        ):
            envs.step([0] * 4)
        assert not any(map(alive, processes))
        with pytest.raises(EnvironmentFault, match="have ended"):
            envs.step([0] * 4)


class Interrupting(faulty.Walk):
    def step(self, action: Any) -> Any:
        raise KeyboardInterrupt


class Closing(faulty.Walk):
    def step(self, action: Any) -> Any:
        os.closerange(3, 100)
        return super().step(action)


def test_an_environment_that_raises_an_interrupt_in_a_worker_is_named() -> None:
    with workers([faulty.Walk, Interrupting]) as envs:
        envs.reset([0, 1])
        with pytest.raises(
            EnvironmentFault, match=r"^environment 1 of x raised at step 1: KeyboardInterrupt \(test_workers"
        ):
            envs.step([0, 0])


def test_a_worker_whose_files_were_closed_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with workers([faulty.Walk, Closing]) as envs:
        envs.reset([0, 1])
        with pytest.raises(
            EnvironmentFault, match=r"environment 1 of x died \(.*closed.*\) while stepping environment 1 at"
        ):
            envs.step([0, 0])
    assert "Traceback" not in capfd.readouterr().err


def test_a_foreign_cost_in_a_worker_is_complained_of() -> None:
    with workers([faulty.Walk, lambda: faulty.Faulty("bad cost", at=1)]) as envs:
        envs.reset([0, 1])
        step = envs.step([0, 0])
    assert step.costs is None
    assert step.complaint == "environment 1 of x gave a cost at step 1 that is nan, not a finite number."


class Locked(faulty.Walk):
    """Has a lock in its info, which no other process can have."""

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, info | {"plain": 1, "lock": threading.Lock()}


def test_an_info_that_cannot_be_sent_is_named_and_the_worker_lives_on() -> None:
    with workers([faulty.Walk, Locked]) as envs:
        envs.keep_infos(True)
        envs.reset([0, 1])
        with pytest.raises(
            EnvironmentFault,
            match=r"^environment 1 of x gave an info\['lock'\] that cannot .*use workers=0, or switch copy_info",
        ):
            envs.step([0, 0])
        envs.keep_infos(False)
        assert envs.step([0, 0]).valid.all()


class Masked(faulty.Walk):
    """Has an action mask in its observation."""

    observation_space = spaces.Dict({"x": faulty.Walk.observation_space, "action_mask": spaces.MultiBinary(3)})

    def observe(self, action: Any) -> Any:
        return {"x": super().observe(action), "action_mask": np.ones(3, np.int8)}


def test_a_mask_that_wrappers_leave_out_is_said_once() -> None:
    with workers([lambda: FlattenObservation(Masked())] * 2) as envs:
        assert envs.hides_mask
        assert "x has an action_mask in its observations that its wrappers leave out" in str(words_on_mask(envs))
    assert words_on_mask(SerialEnvironments([Masked])) is None
    with pytest.warns(UserWarning, match="wrappers leave out") as heard:
        jumar.PPO(lambda: FlattenObservation(Masked()), n_envs=2)
    assert len(heard) == 1


def test_a_killed_worker_is_named() -> None:
    with workers([faulty.Walk] * 2) as envs:
        envs.reset([0, 1])
        processes = process_ids(envs)
        os.kill(processes[0], signal.SIGKILL)
        with pytest.raises(EnvironmentFault, match=r"process of environment 0 of x died \(killed by SIGKILL\) while"):
            envs.step([0, 0])
        assert not any(map(alive, processes))


def test_a_hanging_environment_is_named_and_stopped() -> None:
    makers = [lambda i=i: faulty.Faulty("hang", at=1 if i == 1 else -1) for i in range(3)]
    with workers(makers, timeout=2.0) as envs:
        processes = process_ids(envs)
        envs.reset([0] * 3)
        with pytest.raises(
            EnvironmentFault,
            match=r"^environment 1 of x did not return from step 1 within 2 s and was stopped; .*resume",
        ):
            envs.step([0] * 3)
        assert not any(map(alive, processes))


def test_signals_that_mean_the_whole_job_are_left_to_the_parent() -> None:
    with workers([faulty.Walk] * 2) as envs:
        envs.reset([0, 1])
        for process in process_ids(envs):
            os.kill(process, signal.SIGINT)
            os.kill(process, signal.SIGTERM)
            os.kill(process, signal.SIGHUP)
            assert os.getpgid(process) != os.getpgrp()  # Ctrl-C in a terminal does not reach it at all
        for _ in range(3):
            assert envs.step([0, 0]).valid.all()


class Sleepy(faulty.Walk):
    def step(self, action: Any) -> Any:
        if self.time == 0:
            time.sleep(1.0)
        return super().step(action)


def test_after_an_interrupt_no_stale_answer_is_taken() -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with workers([Sleepy] * 2) as envs:
        first, _ = envs.reset([0, 1])
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                envs.step([0, 0])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        again, _ = envs.reset([0, 1])
        assert_same_bits(first, again)
        assert envs.step([0, 0]).observations[:, 0].tolist() == [1, 1]


def test_workers_do_without_jax_and_print_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with workers([faulty.Modules] * 2) as envs:
        envs.reset([0, 1])
        assert envs.step([0, 0]).rewards.tolist() == [0.0, 0.0]
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.count("printed by the environment") == 2


def test_workers_print_to_nowhere_where_nobody_reads() -> None:
    readable, writable = os.pipe()
    kept = os.dup(2)
    os.dup2(writable, 2)
    try:
        for end in (readable, writable):
            os.close(end)
        with workers([faulty.Modules]) as envs:
            envs.reset([0])
            assert envs.step([0]).valid.all()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_what_cannot_start_says_why() -> None:
    class Other(faulty.Walk):
        observation_space = spaces.Box(0, 1, (2,))

    with pytest.raises(UsageError, match=r"environment 1 of x has the space 2 numbers .*the first one"):
        WorkerEnvironments([faulty.Walk, Other], 2, "x")
    with pytest.raises(EnvironmentFault, match="environment 1 of x raised while it was made: ZeroDivisionError"):
        WorkerEnvironments([faulty.Walk, lambda: 1 / 0], 2, "x")  # type: ignore[list-item]
    generator = (i for i in range(3))
    with pytest.raises(UsageError, match=r"what makes x cannot be sent to a worker process: .*generator"):
        WorkerEnvironments([lambda: next(generator)], 1, "x")  # type: ignore[list-item]
    with pytest.raises(UsageError, match="number of worker processes is 0"):
        WorkerEnvironments([faulty.Walk], 0)


SCRIPT = """
    import os, sys, threading
    print("imported")
    sys.path.insert(0, {folder!r})
    import faulty, gymnasium as gym
    from jumar.envs.registry import make_host, resolve
    from jumar.envs.workers import WorkerEnvironments

    class Mine(faulty.Walk):
        pass

    gym.register("Mine-v0", Mine)
    make = [Mine, lambda: faulty.Faulty("hang", at=1)]
    envs = WorkerEnvironments(make, 2)
    by_id = make_host(resolve("Mine-v0"), 2, workers=1)
    by_id.reset([0, 1])
    envs.reset([0, 1])
    processes = [worker.process.pid for each in (envs, by_id) for worker in each._workers]
    print(*processes, flush=True)
    if sys.argv[1] == "hang":
        envs.step([0, 0])
"""


def run_script(folder: Path, argument: str) -> subprocess.Popen[str]:
    script = folder / "main.py"
    script.write_text(textwrap.dedent(SCRIPT.format(folder=str(Path(faulty.__file__).parent))))
    return subprocess.Popen([sys.executable, str(script), argument], stdout=subprocess.PIPE, text=True)


def read_process_ids(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    assert process.stdout.readline() == "imported\n"
    return [int(word) for word in process.stdout.readline().split()]  # and not "imported" once more, by a worker


def test_classes_and_ids_of_the_main_script_work_and_end_with_it(tmp_path: Path) -> None:
    with run_script(tmp_path, "end") as process:
        processes = read_process_ids(process)
        assert process.wait(60) == 0
    assert len(processes) == 3
    assert not any(map(alive, processes))


def test_workers_end_when_their_parent_is_killed_even_while_they_hang(tmp_path: Path) -> None:
    with run_script(tmp_path, "hang") as process:
        processes = read_process_ids(process)
        assert all(map(alive, processes))
        process.kill()
    assert eventually(lambda: not any(map(alive, processes)))


def test_forgotten_environments_take_their_workers_along() -> None:
    envs = WorkerEnvironments([lambda: gym.make("CartPole-v1")], 1)
    (process,) = process_ids(envs)
    assert (envs.name, envs.episode_limit) == ("CartPole-v1", 500)
    del envs
    assert not alive(process)
