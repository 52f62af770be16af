"""Standard streams that are closed, full or left: the work goes on, and the exit code says whether its answer was written."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from jumar.console.streams import Steady
from jumar.drills.faults.streams import REDIRECTIONS, Redirection

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


@pytest.mark.parametrize("each", REDIRECTIONS, ids=lambda each: f"{each.command} {each.shell}")
def test_streams_do_not_stop_the_work(each: Redirection) -> None:
    word, _, options = each.command.partition(" ")
    script = f'"$0" -c "$1" {word} r {options} {each.shell}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script, sys.executable, COMMAND], capture_output=True, text=True)
    assert done.returncode == each.code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert each.errors is None or each.errors in done.stderr
    if each.works:
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
