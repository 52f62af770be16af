"""Commands in processes: how they end, what is wrong with that, and limits that are set for them."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from jumar.drills.memory import MIB, Sample, as_csv, growth, resident_bytes, watch
from jumar.drills.processes import Ended, Running, command, complaint, run, wait_until
from jumar.drills.session import Session


def ended(code: int | None = 0, output: str = "", errors: str = "") -> Ended:
    return Ended(["jumar"], code, output, errors)


@pytest.mark.parametrize(
    ("one", "codes", "said", "wrong"),
    [
        (ended(), (0,), (), None),
        (ended(2, "", "jumar: error: no such run."), (1, 2), ("no such",), None),
        (ended(None), (0,), (), "it hung and had to be killed"),
        (ended(1, "", "Traceback (most recent call last):\nValueError: x"), (1,), (), "it showed 'Traceback"),
        (ended(1, "", "KeyError: 3\nthis is a bug in Jumar; run"), (1,), (), "it showed 'this is a bug"),
        (ended(-9, "", "killed"), (0, 1), (), "exit code -9: killed"),
        (
            ended(1, "", "jumar: error: \x1b[2Jodd"),
            (1,),
            ("No space",),
            r"it did not say 'No space': jumar: error: \x1b[2Jodd",
        ),
    ],
)
def test_what_is_wrong_is_said(one: Ended, codes: tuple[int, ...], said: tuple[str, ...], wrong: str | None) -> None:
    found = complaint(one, codes, *said)
    assert (found is None) == (wrong is None)
    assert wrong is None or (found or "").startswith(wrong)


def test_the_last_json_is_the_answer() -> None:
    assert ended(0, 'words\n{"a": 1}\n').answer() == {"a": 1}
    assert ended(0, "words\n").answer() == {}
    assert ended(0, "[1]\n").answer() == {}


def test_a_process_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); time.sleep(60)"
    )
    with Running([sys.executable, "-c", script], tmp_path) as running:
        wait_until(lambda: (tmp_path / "command.out").read_text().endswith("\n"), running)
        child = int((tmp_path / "command.out").read_text())
        assert running.under_way
        done = running.wait(0.1)
    assert done.code is None
    assert complaint(done, (0,)) == "it hung and had to be killed"
    status = Path(f"/proc/{child}/stat")
    for _ in range(100):  # whoever inherited it may not have noticed yet
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child lives")


def test_limits_are_set_and_the_code_is_the_commands(tmp_path: Path) -> None:
    words = command("list", "algorithms", limits={"NOFILE": 64, "FSIZE": 1000})
    script = "import resource, sys; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0]); sys.exit(3)"
    cut = words.index("--")
    done = run([*words[: cut + 1], sys.executable, "-c", script], tmp_path, {"HOME": None})
    assert (done.code, done.output) == (3, "64\n")
    assert run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], tmp_path).code == -signal.SIGKILL


@pytest.mark.slow  # two processes that import JAX
def test_a_session_answers_many_commands_and_survives_one_that_ends_it(tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        assert session.jumar("list", "algorithms").output.startswith("a2c")
        wrong = session.jumar("evaluate", "nothing")
        assert (wrong.code, complaint(wrong, (2,), "there is no run at nothing")) == (2, None)
        process = session._process
        assert process is not None
        process.kill()
        process.wait()
        assert session.jumar("list", "algorithms").code == 0
        assert session.jumar("list", "algorithms", seconds=0.0).code is None


def samples(*resident: float, steps: int = 10) -> list[Sample]:
    return [Sample(float(i), steps * i, int(x * MIB)) for i, x in enumerate(resident)]


def test_growth_is_that_of_the_second_half() -> None:
    flat = samples(*range(0, 1000, 50), *[1000] * 21)
    assert growth(flat) == pytest.approx(0.0, abs=1.0)
    rising = samples(*range(100, 141))
    assert growth(rising) == pytest.approx(19 * MIB)
    noisy = samples(*[100 + (-1) ** i for i in range(41)])
    assert abs(growth(noisy)) < 0.3 * MIB
    with pytest.raises(ValueError, match="3 samples of the second half are too few"):
        growth(samples(*range(7)))
    with pytest.raises(ValueError, match="0 samples"):
        growth([])


def test_samples_are_a_table() -> None:
    assert as_csv(samples(1, 2)) == "seconds,steps,resident_bytes\n0.0,0,1048576\n1.0,10,2097152\n"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell the memory of a process")
def test_memory_is_that_of_a_process_and_its_children(tmp_path: Path) -> None:
    script = "import subprocess, sys, time; x = bytearray(60_000_000); print(1, flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])"
    with Running([sys.executable, "-c", parent], tmp_path) as running:
        wait_until(lambda: (tmp_path / "command.out").read_text() == "1\n", running)
        assert resident_bytes(running.process.pid) > 60_000_000
        left = iter([True, True, False])
        seen = watch(running.process.pid, lambda: 7, lambda: next(left), every=0.0)
    assert [each.steps for each in seen] == [7, 7]
    assert resident_bytes(running.process.pid) == 0
