"""SLURM's commands as far as Jumar uses them, on this machine alone: ``install`` puts them on the PATH of a test.

``sbatch`` begins a process for each task of an array; so many of them run at a time as ``slots`` says, the others are pending.
What is known of each task is a file of JSON, so that any process may ask.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "squeue", "sacct", "scancel")
STATE = "FAKE_SLURM"
SLOTS = "FAKE_SLURM_SLOTS"


def install(folder: Path, slots: int) -> dict[str, str]:
    """Make the commands in a folder, and return the environment of a process that has them."""
    (folder / "bin").mkdir(parents=True)
    (folder / "tasks").mkdir()
    for name in COMMANDS:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        path.chmod(0o755)
    return {STATE: str(folder), SLOTS: str(slots), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def tasks(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of all tasks, in the order in which they were submitted."""
    return [json.loads(path.read_text()) for path in sorted((folder / "tasks").glob("*.json"))]


def kill_node(folder: Path, task: dict[str, Any]) -> None:
    """Let the machine of a running task die: its batch process is killed, and SLURM notices."""
    change(folder, task["id"], state="NODE_FAIL")
    os.kill(task["pid"], signal.SIGKILL)


def change(folder: Path, task: str, **values: Any) -> None:
    """Note something of a task, unless it is over already."""
    path = folder / "tasks" / f"{task}.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(path.read_text())
        if known["state"] in ("PENDING", "RUNNING"):
            path.with_suffix(".new").write_text(json.dumps({**known, **values}))
            path.with_suffix(".new").replace(path)


def value(words: list[str], option: str) -> str:
    """Return the value of an option."""
    return next(word.partition("=")[2] for word in words if word.startswith(f"--{option}="))


def sbatch(folder: Path, words: list[str]) -> None:
    """Submit an array."""
    if "--partition=nowhere" in words:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    number = 100 + len(list(folder.glob("*.sh")))
    (folder / f"{number}.sh").write_text(sys.stdin.read())
    for part in value(words, "array").split(","):
        first, _, last = part.partition("-")
        for index in range(int(first), int(last or first) + 1):
            name = f"{number}_{index}"
            known = {"id": name, "name": value(words, "job-name"), "index": index, "state": "PENDING", "pid": None}
            known |= {"processors": value(words, "cpus-per-task"), "output": value(words, "output")}
            (folder / "tasks" / f"{name}.json").write_text(json.dumps(known))
            subprocess.Popen(
                [sys.executable, __file__, "run", name], start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
    print(number)


def run(folder: Path, words: list[str]) -> None:
    """Do a task when there is a slot for it."""
    [name] = words
    number, _, index = name.partition("_")
    known = json.loads((folder / "tasks" / f"{name}.json").read_text())
    while True:
        for slot in range(int(os.environ[SLOTS])):
            lock = (folder / f"slot{slot}").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            if json.loads((folder / "tasks" / f"{name}.json").read_text())["state"] != "PENDING":
                return
            with open(known["output"].replace("%a", index), "a") as output:
                process = subprocess.Popen(
                    ["sh", str(folder / f"{number}.sh")], stdout=output, stderr=output,
                    env={**os.environ, "SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index},
                )  # fmt: skip
            change(folder, name, state="RUNNING", pid=process.pid)
            change(folder, name, state="COMPLETED" if process.wait() == 0 else "FAILED")
            return
        if json.loads((folder / "tasks" / f"{name}.json").read_text())["state"] != "PENDING":
            return
        time.sleep(0.05)


def squeue(folder: Path, words: list[str]) -> None:
    """Print the tasks of some arrays that are not over."""
    names = value(words, "name").split(",")
    assert value(words, "format") == "%j|%i|%T|%r"
    for task in tasks(folder):
        if task["name"] in names and task["state"] in ("PENDING", "RUNNING"):
            print(
                f"{task['name']}|{task['id']}|{task['state']}|{'Resources' if task['state'] == 'PENDING' else 'None'}"
            )


def sacct(folder: Path, words: list[str]) -> None:
    """Print what became of a task."""
    for task in tasks(folder):
        if task["id"] == value(words, "jobs"):
            print(f"{task['state']}|node1")


def scancel(folder: Path, words: list[str]) -> None:
    """Take a task out of the queue, or end it."""
    for task in tasks(folder):
        if task["id"] in words:
            if task["pid"] is not None and task["state"] == "RUNNING":
                os.kill(task["pid"], signal.SIGTERM)
            change(folder, task["id"], state="CANCELLED")


if __name__ == "__main__":
    {each.__name__: each for each in (sbatch, run, squeue, sacct, scancel)}[sys.argv[1]](
        Path(os.environ[STATE]), sys.argv[2:]
    )
