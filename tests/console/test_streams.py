"""Standard streams that are closed, full or left: the work goes on, and the exit code says whether its answer was written."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from jumar.console.streams import Steady

COMMAND = """
import os, subprocess, sys
from types import ModuleType

def work(*_, **__):
    with open("log.txt", "w") as log:
        log.write("begun, ")
        log.flush()
        for _ in range(2000):
            print("from the environment")
        os.write(2, b"from a library\\n") if sys.argv[1] == "resume" else None
        subprocess.run(["sh", "-c", "echo from a child; echo and more >&2"], stderr=-3)
        log.write("ended")
    return {"run_dir": "r", "mean_return": 1.0, "std_return": 0.0, "min_return": 1.0, "max_return": 1.0,
            "mean_length": 9.0, "episodes": 1, "returns": [1.0]}

sys.modules["jumar.training.commands"] = jobs = ModuleType("jobs")
jobs.resume = jobs.evaluate = work
from jumar.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("line", "code", "errors"),
    [
        ("resume r 2>&-", 0, None),
        ("resume r >&-", 0, "warning: the last words could not be printed: standard output is closed."),
        ("resume r >&- 2>&- <&-", 0, None),
        ("resume r --json 2>&-", 0, None),
        ("resume r --json >&-", 1, "error: standard output is closed."),
        ("resume r --json >/dev/full", 1, "error: No space left on device."),
        ("resume r >/dev/full", 0, "warning: the last words could not be printed: No space left on device."),
        ("resume r --json | head -0", 0, ""),
        ("resume r | head -0", 0, ""),
        ("evaluate r >&-", 1, "error: standard output is closed."),
        ("evaluate r --help >/dev/full", 1, "error: No space left on device."),
    ],
)
def test_streams_do_not_stop_the_work(line: str, code: int, errors: str | None) -> None:
    words, _, redirection = line.partition(" r ")
    script = f'"$0" -c "$1" {words} r {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script, sys.executable, COMMAND], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert errors is None or errors in done.stderr
    if "--help" not in line:
        assert Path("log.txt").read_text() == "begun, ended"


def test_a_stream_that_broke_is_silent_and_tells_why() -> None:
    with open("/dev/full", "w") as full:
        stream = Steady(full)
        stream.write("lost")
        stream.flush()
        assert isinstance(stream.failure, OSError)
        stream.write("lost, too")
        stream.flush()
    closed = io.StringIO()
    closed.close()
    Steady(closed).write("nothing")
    whole = io.StringIO()
    print("kept", file=Steady(whole))
    assert whole.getvalue() == "kept\n"
