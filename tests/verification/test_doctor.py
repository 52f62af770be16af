"""The doctor: what it makes of machines and installations that are wrong, and processes that crash or hang."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jumar.cli import doctor, main
from jumar.verification.doctor import examine
from jumar.verification.doctor.children import Answer, ask, run
from jumar.verification.doctor.finding import Finding
from jumar.verification.doctor.system import (
    Limits,
    Requirement,
    control_group_limits,
    is_older,
    memory_information,
    requirements,
)
from jumar.xla.processor import instruction_sets, processor_name


def system(tmp_path: Path, **files: str) -> Path:
    """Make a file system with these files, ``__`` standing for a slash."""
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_limits_of_control_groups_of_version_2_are_the_strictest_on_the_way(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        proc__self__cgroup="0::/a/b\n",
        sys__fs__cgroup__a__cpu_DOT_max="150000 100000\n",
        sys__fs__cgroup__a__b__cpu_DOT_max="max 100000\n",
        sys__fs__cgroup__a__memory_DOT_max="1000\n",
        sys__fs__cgroup__a__memory_DOT_current="400\n",
        sys__fs__cgroup__a__b__memory_DOT_max="max\n",
    )
    assert control_group_limits(root) == Limits(1.5, 1000, 600)


def test_limits_of_control_groups_of_version_1_and_of_none(tmp_path: Path) -> None:
    assert control_group_limits(tmp_path) == Limits(None, None, None)
    root = system(
        tmp_path,
        proc__self__cgroup="4:memory:/gone\n1:cpu,cpuacct:/c\n0::/\n",
        sys__fs__cgroup__cpu__c__cpu_DOT_cfs_quota_us="-1\n",
        sys__fs__cgroup__cpu__cpu_DOT_cfs_quota_us="200000\n",
        sys__fs__cgroup__cpu__cpu_DOT_cfs_period_us="100000\n",
        sys__fs__cgroup__memory__memory_DOT_limit_in_bytes="9223372036854771712\n",
    )
    assert control_group_limits(root) == Limits(2.0, None, None)


def test_what_the_system_says_of_processor_and_memory(tmp_path: Path) -> None:
    assert (instruction_sets(tmp_path), memory_information(tmp_path), processor_name(tmp_path)) == (None, {}, "unknown")
    root = system(
        tmp_path,
        proc__cpuinfo="model name\t: Abacus\nflags\t\t: fpu avx2 avx fma\n",
        proc__meminfo="MemTotal:  2048 kB\nMemAvailable:   1024 kB\nHugePages: 0\n",
    )
    assert instruction_sets(root) == ["avx", "avx2", "fma"]
    assert memory_information(root) == {"MemTotal": 2**21, "MemAvailable": 2**20}
    assert processor_name(root) == "Abacus"
    [found] = [each for each in examine.memory(root) if each.name == "memory"]
    assert (found.status, found.words) == ("warning", "1 MiB of memory are left, of 2 MiB.")
    assert [each.status for each in examine.processors(root)] == ["ok", "ok"]
    old = system(
        tmp_path,
        proc__cpuinfo="flags : fpu sse2\n",
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__cpu_DOT_max="10000 100000\n",
    )
    faults = {each.name: each.status for each in examine.processors(old)}
    assert faults["processors"] == ("warning" if len(os.sched_getaffinity(0)) > 0.6 else "ok")
    if examine.platform.machine() == "x86_64":
        assert faults["instruction set"] == "fault"


def test_requirements_and_versions_are_read() -> None:
    lines = [
        "jax>=0.8",
        "numpy",
        "pyright[nodejs]>=1.1.400",
        "ale-py>=0.11; extra == 'atari'",
        'six ; extra == "gymnax"',
    ]
    assert requirements(lines) == [
        Requirement("jax", "0.8", None),
        Requirement("numpy", "", None),
        Requirement("pyright", "1.1.400", None),
        Requirement("ale-py", "0.11", "atari"),
        Requirement("six", "", "gymnax"),
    ]
    older = [("0.9.1", "0.10"), ("1.2", "1.2.1"), ("0.7.9rc1", "0.8")]
    newer = [("0.10", "0.9.1"), ("1.2.0", "1.2"), ("2", "1.9"), ("1.3.dev1", "1.3"), ("x", ""), ("0.1", "")]
    assert all(is_older(*pair) for pair in older)
    assert not any(is_older(*pair) for pair in newer)


def test_missing_old_and_broken_packages_are_told_apart() -> None:
    needed = [Requirement("jax", "0.8", None), Requirement("numpy", "2.0", None)]
    needed += [
        Requirement("ale-py", "0.11", "atari"),
        Requirement("six", "", "gymnax"),
        Requirement("h5py", "3", "minari"),
    ]
    good = {"jax": "0.10", "numpy": "2.1", "ale-py": "0.12", "six": None, "h5py": "3.1", "jaxlib": "0.10"}
    found = {each.name: each for each in examine.judge_packages(needed, good, {})}
    assert {name: each.status for name, each in found.items()} == {
        "packages": "ok",
        "extra atari": "ok",
        "extra minari": "ok",
        "extras": "note",
    }
    assert found["extras"].remedy == "pip install 'jumar[gymnax]'"
    bad = {**good, "jax": "0.7.2", "jaxlib": None}
    judged = list(examine.judge_packages(needed, bad, {"numpy": "it was ended by SIGILL", "ale_py": "OSError: x."}))
    assert [(each.status, each.words) for each in judged if each.status in ("fault", "warning")] == [
        ("fault", "jax is 0.7.2, and at least 0.8 is needed."),
        ("fault", "numpy 2.1 cannot be imported: it was ended by SIGILL."),
        ("fault", "jaxlib is not installed."),
        ("warning", "ale-py 0.12 cannot be imported: OSError: x."),
    ]
    assert all(each.remedy for each in judged if each.status in ("fault", "warning"))


def test_every_package_of_jumar_and_its_extras_is_imported_by_its_own_name() -> None:
    needed = requirements(importlib.metadata.requires("jumar") or [])
    provided = importlib.metadata.packages_distributions()
    wrong = {
        each.name: examine.module_of(each.name)
        for each in needed
        if each.name.lower() not in [name.lower() for name in provided.get(examine.module_of(each.name), [])]
    }
    assert not wrong


def test_a_process_that_crashes_hangs_or_fails_is_outlived() -> None:
    def code(text: str, seconds: float = 30.0) -> Answer:
        return run([sys.executable, "-c", text], seconds)

    said = code("print('noise'); print('{\"a\": 1}'); print('[1]'); print('{\"a\": 2}')")
    assert (said.said, said.fault, said.value("a"), said.value("b", 7)) == ([{"a": 1}, {"a": 2}], None, 2, 7)
    assert code("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").fault == "it was ended by SIGSEGV"
    assert code("raise SystemExit('so\\x1b[2J')").fault == r"it ended with exit code 1: so\x1b[2J"
    assert code('print(\'{"error": "what is wrong"}\'); raise SystemExit(1)').fault == "what is wrong"
    began = time.monotonic()
    assert code("import time; time.sleep(60)", 0.2).fault == "it did not answer within 0.2 s"
    assert time.monotonic() - began < 30
    assert str(run(["/nowhere/python"], 1.0).fault).startswith("no process could be started")


def test_processes_that_a_probe_started_end_with_it(tmp_path: Path) -> None:
    text = "import json, subprocess, sys\nchild = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
    text += "print(json.dumps({'pid': subprocess.Popen(child).pid}))"
    pid = run([sys.executable, "-c", text], 30.0).value("pid")
    for _ in range(500):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    raise AssertionError("it lives on")


def test_a_module_that_crashes_is_named_and_the_others_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def answer(name: str, *modules: str, **options: Any) -> Answer:
        asked.append(modules)
        if "b" in modules:
            return Answer(
                [{"importing": "a"}, {"module": "a", "raised": "ImportError: no"}, {"importing": "b"}], "SIGILL"
            )
        return Answer([{"importing": "c"}, {"module": "c", "version": "1"}])

    monkeypatch.setattr(examine, "ask", answer)
    assert examine._import_failures(["a", "b", "c"]) == {"a": "ImportError: no", "b": "SIGILL"}
    assert asked == [("a", "b", "c"), ("c",)]


def test_modules_are_imported_in_a_process_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "broken_one.py").write_text("print('to standard output')\nraise ImportError('half')\n")
    answer = ask(
        "imports",
        "json",
        "broken_one",
        "nowhere_to_be_found",
        seconds=60.0,
        environment={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    raised = {each["module"]: each.get("raised") for each in answer.said if "module" in each}
    assert raised == {
        "json": None,
        "broken_one": "ImportError: half",
        "nowhere_to_be_found": "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
    }


def test_a_disk_is_tried_and_left_clean(tmp_path: Path) -> None:
    answer = ask("disk", str(tmp_path), seconds=60.0)
    assert answer.fault is None
    assert answer.value("writable") is True
    assert abs(answer.value("clock_difference")) < 60
    assert list(tmp_path.iterdir()) == []
    assert str(ask("disk", str(tmp_path / "nowhere"), seconds=60.0).fault).startswith("No such file or directory")


def test_space_is_judged() -> None:
    judged = [
        examine.judge_space(Path("runs"), free, files).status
        for free, files in ((2**40, None), (2**40, 10**6), (2**29, 10**6), (2**20, 10**6), (2**40, 3))
    ]
    assert judged == ["ok", "ok", "warning", "fault", "fault"]


@pytest.mark.parametrize(
    ("examination", "answer", "status"),
    [
        (examine.devices, Answer(fault="RuntimeError: no backend"), "fault"),
        (examine.devices, Answer([{"devices": []}, {"product": 63.0}]), "fault"),
        (examine.workers, Answer(fault="it hangs"), "warning"),
        (examine.workers, Answer([{"stepped": True}]), "ok"),
        (examine.training, Answer(fault="it was ended by SIGKILL"), "fault"),
        (examine.training, Answer([{"steps": 5, "steps_per_second": None}, {"same_after_loading": False}]), "fault"),
        (examine.training, Answer([{"steps": 5, "steps_per_second": 9.0}, {"same_after_loading": True}]), "ok"),
        (examine.checks, Answer([{"check": "a", "passed": True}, {"check": "b", "passed": False}]), "fault"),
        (examine.checks, Answer([{"check": "a", "passed": True}]), "ok"),
        (examine.disk, Answer(fault="Permission denied"), "fault"),
    ],
)
def test_what_a_process_says_is_judged(
    examination: Any, answer: Answer, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "ask", lambda *_, **__: answer)
    found = list(examination())
    assert [each.status for each in found] == [status]
    assert status not in ("warning", "fault") or answer.fault is None or answer.fault in found[0].words


def test_limits_of_the_shell_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_NOFILE: 256, resource.RLIMIT_CPU: 60}
    monkeypatch.setattr(
        examine.resource,
        "getrlimit",
        lambda number: (limits.get(number, resource.RLIM_INFINITY), resource.RLIM_INFINITY),
    )
    found = list(examine.limits())
    assert [(each.status, each.remedy) for each in found] == [
        ("warning", "ulimit -n 4096"),
        ("warning", "ulimit -t unlimited"),
    ]


def test_the_exit_code_says_whether_training_is_possible(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fine() -> Iterator[Finding]:
        yield Finding("a", "ok", "It is fine.")
        yield Finding("b", "warning", "It is slow\x1b[2J.", "buy another", {"n": 1})

    def broken() -> Iterator[Finding]:
        yield Finding("c", "fault", "It cannot.", "mend it")

    def raising() -> Iterator[Finding]:
        yield Finding("d", "ok", "This much is known.")
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(examine, "LIGHT", (fine, raising))
    monkeypatch.setattr(examine, "HEAVY", (broken,))
    assert main(["doctor", "--quick", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["can_train"], found["faults"], found["warnings"]) == (True, 0, 2)
    assert found["findings"][1] == {
        "name": "b",
        "status": "warning",
        "words": "It is slow\x1b[2J.",
        "remedy": "buy another",
        "data": {"n": 1},
    }
    assert found["findings"][3]["words"] == "This could not be examined: ZeroDivisionError: oops."
    assert main(["doctor"]) == 1
    assert capfd.readouterr().out.splitlines() == [
        "ok       a: It is fine.",
        r"warning  b: It is slow\x1b[2J.",
        "         What helps: buy another",
        "ok       d: This much is known.",
        "warning  raising: This could not be examined: ZeroDivisionError: oops.",
        "FAULT    c: It cannot.",
        "         What helps: mend it",
        "",
        "Jumar cannot train here: 1 fault above. 2 warnings above are worth a look.",
    ]
    narrow = doctor.words([Finding("a", "note", "word " * 30, "word " * 30)], 40).splitlines()
    assert max(map(len, narrow)) <= 40


@pytest.mark.slow
def test_this_machine_can_train(capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    found = json.loads(capfd.readouterr().out)
    faults = [each for each in found["findings"] if each["status"] == "fault"]
    assert (code, faults) == (0, [])
    names = [each["name"] for each in found["findings"]]
    assert {"python", "packages", "devices", "disk", "training", "verification", "workers"} <= set(names)
    [trained] = [each for each in found["findings"] if each["name"] == "training"]
    assert trained["data"]["steps"] > 0
