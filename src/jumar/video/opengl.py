"""Which OpenGL driver MuJoCo draws with, where there is no display.

MuJoCo takes the driver that the environment variable ``MUJOCO_GL`` names when it is imported. A driver that is not there may
raise, crash or hang, so each is tried in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from jumar.errors import UsageError

VARIABLE = "MUJOCO_GL"
PATIENCE = 60.0
"""Seconds after which a driver that is tried counts as none."""

_TRIAL = """
import mujoco
context = mujoco.GLContext(64, 64)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
"""

_REMEDY = (
    "Install a driver that needs no display: on Debian and Ubuntu, apt install libegl1 libgl1 (or libosmesa6). With a virtual "
    "display it works, too: apt install xvfb, then xvfb-run jumar ..."
)


def has_display(environment: Mapping[str, str] | None = None) -> bool:
    """Whether there is a screen that windows can be opened on, as far as the environment variables tell."""
    environment = os.environ if environment is None else environment
    if sys.platform != "linux":
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def choose_driver(name: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the driver to draw ``name`` with: that of ``MUJOCO_GL`` where it is set, else the first that works.

    Raises:
        UsageError: MuJoCo is missing, or no driver works; the message says what to install.
    """
    environment = os.environ if environment is None else environment
    if importlib.util.find_spec("mujoco") is None:
        raise UsageError(f"{name} needs MuJoCo, which is not installed: pip install 'jumar[mujoco]'.")
    given = environment.get(VARIABLE)
    tried = [given] if given else ["egl", "osmesa", *(["glfw"] if has_display(environment) else [])]
    faults = {}
    for driver in tried:
        fault = try_driver(driver, environment)
        if fault is None:
            return driver
        faults[driver] = fault
    if given:
        raise UsageError(
            f"{name} is drawn by OpenGL, and {VARIABLE}={given} does not work here ({faults[given]}). Unset it to have another "
            f"one looked for. {_REMEDY}"
        )
    reasons = "; ".join(f"{driver}: {fault}" for driver, fault in faults.items())
    raise UsageError(f"{name} is drawn by OpenGL, and no driver for it works here ({reasons}). {_REMEDY}")


def try_driver(driver: str, environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with a driver; ``None`` where it works."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRIAL],
            env={**environment, VARIABLE: driver},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
            cwd=tempfile.gettempdir(),  # MuJoCo writes what goes wrong to a file in the working folder
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PATIENCE:g} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    last = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
    return last[:120].rstrip(". ") or f"exit code {done.returncode}"
