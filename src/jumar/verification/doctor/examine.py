"""The examinations: each returns what it found. None changes anything but temporary files of its own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from jumar.errors import JumarError
from jumar.runs.overview import find_runs
from jumar.text import counted
from jumar.verification.doctor.children import Answer, ask
from jumar.verification.doctor.finding import Finding
from jumar.verification.doctor.system import (
    Requirement,
    control_group_limits,
    free_bytes,
    is_older,
    memory_information,
    requirements,
)
from jumar.video.opengl import has_display, try_driver
from jumar.xla.cache import SWITCH_OFF
from jumar.xla.processor import instruction_sets, processor_name

GIB = 2**30
LEAST_MEMORY = GIB
"""Importing JAX and compiling an update takes some 600 MB; below this much, little is left for buffers."""
LEAST_SPACE, TIGHT_SPACE = 20 * 2**20, GIB
"""Bytes that a small run takes, and below which a long one may fill the disk."""
FEW_FILES = 1024
"""Descriptors. Each worker process and environment takes some."""
LATE = 2.0
"""Seconds that a file system's clock may be off, and that flushing may take."""
RELEASED = 1_735_689_600
"""1 January 2025: a clock before it is wrong."""
MODULES = {
    "ale-py": "ale_py",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "pillow": "PIL",
    "pygame-ce": "pygame",
    "tensorboardx": "tensorboardX",
}
"""How packages are imported that are not called as they are installed."""
CHECKS = ("distributions/gaussian", "estimators/gae", "objectives/clipped", "critics/sac-policy")
"""Of ``jumar verify``: one of each kind, and quick ones."""
TRAINING_SECONDS = 5
VARIABLES = (
    "JAX_",
    "XLA_",
    "JUMAR_",
    "MUJOCO_GL",
    "OMP_NUM_THREADS",
    "NPROC",
    "XDG_CACHE_HOME",
    "CUDA_VISIBLE_DEVICES",
)
SLOW_VARIABLES = {
    "JAX_DISABLE_JIT": "nothing is compiled, and training is some hundred times slower",
    "JAX_DEBUG_NANS": "every program is run and checked again where it makes a NaN, which is slow",
    "JAX_LOG_COMPILES": "a line is printed for each program that is compiled",
}

Examination = Callable[[], Iterator[Finding]]


def python() -> Iterator[Finding]:
    """Look at Python and the system."""
    words = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}."
    yield Finding("python", "ok", words, data={"python": platform.python_version(), "executable": sys.executable})
    set_here = {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}
    for name, effect in SLOW_VARIABLES.items():
        if set_here.get(name, "0").lower() not in ("", "0", "false"):
            yield Finding("environment", "warning", f"{name}={set_here[name]}: {effect}.", f"unset {name}")
    if set_here:
        shown = ", ".join(f"{name}={value[:60]}" for name, value in set_here.items())
        yield Finding("environment", "note", f"Variables that matter are set: {shown}.", data=set_here)


# --- packages --------------------------------------------------------------------------------------------------------


def packages() -> Iterator[Finding]:
    """Look at the packages that Jumar and its extras need: there, new enough, and importable."""
    try:
        needed = requirements(importlib.metadata.requires("jumar") or [])
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", "warning", "Jumar runs from a folder and is not installed.", "pip install jumar")
        needed = requirements(["jax", "numpy", "gymnasium", "optax", "safetensors"])
    versions = {each.name: _version(each.name) for each in [*needed, Requirement("jaxlib", "", None)]}
    here = [name for name, version in versions.items() if version is not None]
    failures = _import_failures([module_of(name) for name in here])
    yield from judge_packages(needed, versions, failures)


def judge_packages(
    needed: Sequence[Requirement], versions: Mapping[str, str | None], failures: Mapping[str, str]
) -> Iterator[Finding]:
    """Say what is missing, too old or broken.

    Args:
        needed: by Jumar and its extras.
        versions: of the packages; ``None`` where one is missing.
        failures: why a module cannot be imported, by its name.
    """
    core = [each for each in needed if each.extra is None]
    if "jaxlib" in versions and all(each.name != "jaxlib" for each in core):
        core.append(Requirement("jaxlib", "", None))
    shown = ", ".join(f"{each.name} {versions[each.name]}" for each in core if versions[each.name])
    faults = [fault for each in core if (fault := _package_fault(each, versions, failures))]
    data = {each.name: versions[each.name] for each in core}
    if not faults:
        yield Finding("packages", "ok", f"What Jumar needs can be imported: {shown}.", data=data)
    for fault in faults:
        yield Finding("packages", "fault", f"{fault}.", "pip install --upgrade --force-reinstall jumar", data)
    missing = []
    for extra in sorted({each.extra for each in needed if each.extra}):
        of_it = [each for each in needed if each.extra == extra]
        if any(versions[each.name] is None for each in of_it):
            missing.append(extra)
            continue
        shown = ", ".join(f"{each.name} {versions[each.name]}" for each in of_it)
        faults = [fault for each in of_it if (fault := _package_fault(each, versions, failures))]
        for fault in faults:
            yield Finding(f"extra {extra}", "warning", f"{fault}.", f"pip install --upgrade 'jumar[{extra}]'")
        if not faults:
            yield Finding(f"extra {extra}", "ok", f"The extra {extra} can be imported: {shown}.")
    if missing:
        installs = ", ".join(f"pip install 'jumar[{extra}]'" for extra in missing)
        yield Finding(
            "extras", "note", f"Not installed, and only some features need them: {', '.join(missing)}.", installs
        )


def _package_fault(each: Requirement, versions: Mapping[str, str | None], failures: Mapping[str, str]) -> str | None:
    version, module = versions[each.name], module_of(each.name)
    if version is None:
        return f"{each.name} is not installed"
    if is_older(version, each.least):
        return f"{each.name} is {version}, and at least {each.least} is needed"
    if module in failures:
        return f"{each.name} {version} cannot be imported: {failures[module].removesuffix('.')}"
    return None


def module_of(package: str) -> str:
    """Return the name that a package is imported by."""
    return MODULES.get(package.lower(), package.replace("-", "_"))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_failures(modules: Sequence[str]) -> dict[str, str]:
    """Return why modules cannot be imported. One that crashes is left out when the others are tried again."""
    failures: dict[str, str] = {}
    rest = list(modules)
    while rest:
        answer = ask("imports", *rest, seconds=300.0)
        done = {each["module"] for each in answer.said if "module" in each}
        failures |= {each["module"]: each["raised"] for each in answer.said if "raised" in each}
        if answer.fault is None:
            break
        broken = answer.value("importing")
        if broken is None or broken in done:  # it did not even begin, or crashed in leaving
            break
        failures[broken] = answer.fault
        rest = rest[rest.index(broken) + 1 :]
    return failures


# --- the machine -----------------------------------------------------------------------------------------------------


def devices() -> Iterator[Finding]:
    """Look at what JAX computes on."""
    answer = ask("devices", seconds=180.0)
    found = answer.value("devices", [])
    if answer.fault is not None or answer.value("product") != 64.0:
        why = answer.fault or f"a product of matrices of ones is {answer.value('product')}, not 64"
        yield Finding(
            "devices", "fault", f"JAX cannot compute: {why.removesuffix('.')}.",
            "pip install --upgrade --force-reinstall jax jaxlib; JAX_PLATFORMS=cpu leaves a graphics card out",
        )  # fmt: skip
        return
    kinds = ", ".join(f"{each['platform']} ({each['kind']})" for each in found)
    yield Finding(
        "devices", "ok", f"JAX computes on {counted(len(found), 'device')}: {kinds}.", data={"devices": found}
    )
    if Path("/proc/driver/nvidia").exists() and all(each["platform"] == "cpu" for each in found):
        yield Finding(
            "devices", "note", "There is an NVIDIA graphics card, and JAX does not use it.",
            "pip install 'jax[cuda12]'; small policies train as fast on the processor",
        )  # fmt: skip
    yield from _compile_cache(answer)


def _compile_cache(answer: Answer) -> Iterator[Finding]:
    for words in answer.value("cache_warnings", []):
        yield Finding(
            "compile cache", "warning", words[:1].upper() + words[1:], "every command then compiles for seconds"
        )
    folder = answer.value("cache")
    if folder is not None:
        try:
            sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
            free, _ = free_bytes(Path(folder))
        except OSError as error:
            yield Finding("compile cache", "warning", f"{folder} cannot be read ({error.strerror}).")
            return
        words = f"Compiled programs are kept in {folder}: {counted(len(sizes), 'file')}, {_size(sum(sizes))}."
        if free < LEAST_SPACE:
            yield Finding("compile cache", "warning", f"{words} {_size(free)} are free there.", "free some space there")
        else:
            yield Finding("compile cache", "ok", words, data={"folder": folder, "bytes": sum(sizes)})
    elif os.environ.get(SWITCH_OFF, "0") not in ("", "0"):
        yield Finding("compile cache", "note", f"{SWITCH_OFF} is set: every command compiles its programs anew.")
    elif os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        yield Finding(
            "compile cache", "note", "JAX_COMPILATION_CACHE_DIR is set, and JAX keeps compiled programs there."
        )


def processors(root: Path = Path("/")) -> Iterator[Finding]:
    """Look at the processors that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = control_group_limits(root).processors
    words = f"{processor_name(root)}; this process may run on {allowed} of {counted(os.cpu_count() or 1, 'processor')}"
    words += "" if quota is None else f", with the time of {quota:g}"
    data = {"processors": os.cpu_count(), "allowed": allowed, "quota": quota}
    if quota is not None and quota < allowed - 0.5:
        yield Finding(
            "processors", "warning", f"{words}: more threads run than there is time for, and they wait for one another.",
            f"taskset -c 0-{max(0, int(quota) - 1)} jumar ...", data,
        )  # fmt: skip
    else:
        yield Finding("processors", "ok", f"{words}.", data=data)
    sets = instruction_sets(root)
    if sets is None:
        return
    if platform.machine() in ("x86_64", "AMD64") and "avx" not in sets:
        yield Finding(
            "instruction set", "fault", "The processor has no AVX, which the wheels of jaxlib need.",
            "on a virtual machine, choose a newer processor model; else build jaxlib from source",
        )  # fmt: skip
    else:
        yield Finding(
            "instruction set", "ok", f"It has {', '.join(sets) or 'no vector extensions'}.", data={"sets": sets}
        )


def memory(root: Path = Path("/")) -> Iterator[Finding]:
    """Look at the memory that is left."""
    known, limits = memory_information(root), control_group_limits(root)
    available = [x for x in (known.get("MemAvailable"), limits.memory_left) if x is not None]
    address = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address != resource.RLIM_INFINITY:
        yield Finding(
            "memory", "warning", f"Addresses are limited to {_size(address)} (ulimit -v); XLA reserves more than it uses.",
            "ulimit -v unlimited",
        )  # fmt: skip
    if not available:
        return
    least = min(available)
    words = f"{_size(least)} of memory are left"
    words += f", of {_size(known['MemTotal'])}" if "MemTotal" in known else ""
    limited = limits.memory is not None and limits.memory < known.get("MemTotal", limits.memory + 1)
    words += f"; a control group allows {_size(limits.memory)}" if limited and limits.memory is not None else ""
    data = {"available": least, "total": known.get("MemTotal"), "limit": limits.memory}
    status = "warning" if least < LEAST_MEMORY else "ok"
    remedy = "close other programs, or allow more; smaller n_envs, n_steps and buffer_size need less"
    yield Finding("memory", status, f"{words}.", remedy if status == "warning" else None, data)


def limits() -> Iterator[Finding]:
    """Look at what a shell or a batch system limits."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = files == resource.RLIM_INFINITY
    if unlimited or files >= FEW_FILES:
        shown = "any number of files" if unlimited else counted(files, "file")
        yield Finding(
            "limits", "ok", f"This process may open {shown} at a time.", data={"files": None if unlimited else files}
        )
    else:
        yield Finding(
            "limits", "warning", f"This process may open {counted(files, 'file')} at a time (ulimit -n), few for many workers.",
            "ulimit -n 4096",
        )  # fmt: skip
    for number, what, option in (
        (resource.RLIMIT_CPU, "{} seconds of processor time, and is killed after them", "-t"),
        (resource.RLIMIT_FSIZE, "files of at most {} bytes", "-f"),
    ):
        limit = resource.getrlimit(number)[0]
        if limit != resource.RLIM_INFINITY:
            words = f"This process is allowed {what.format(f'{limit:,}')} (ulimit {option})."
            yield Finding("limits", "warning", words, f"ulimit {option} unlimited")


def clock() -> Iterator[Finding]:
    """Look at the time of day."""
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now))
    if now < RELEASED:
        yield Finding(
            "clock", "warning", f"The clock says {shown}, which is past.", "set the clock; names of runs have the date"
        )
    else:
        yield Finding("clock", "ok", f"The clock says {shown}.")


# --- places ----------------------------------------------------------------------------------------------------------


def disk(place: Path = Path("runs")) -> Iterator[Finding]:
    """Look at where runs are kept: space, rights, locks, and the clock of the file system."""
    folder = place if place.exists() else place.absolute().parent
    answer = ask("disk", str(folder.absolute()), seconds=60.0)
    remedy = "choose another place with --run-dir"
    if answer.fault is not None:
        words = f"Runs cannot be written to {folder.absolute()}: {answer.fault.removesuffix('.')}."
        yield Finding("disk", "fault", words, remedy)
        return
    try:
        free, files = free_bytes(folder)
    except OSError as error:
        yield Finding("disk", "warning", f"{folder} does not say how much space is left ({error.strerror}).")
        return
    yield judge_space(folder.absolute(), free, files)
    if answer.value("locks") is False:
        yield Finding(
            "disk", "warning", f"The file system of {folder} has no locks ({answer.value('lock_error')}): nothing keeps two "
            "processes from one run.", remedy,
        )  # fmt: skip
    if (flush := float(answer.value("flush_seconds", 0.0))) > LATE:
        yield Finding(
            "disk", "warning", f"To flush 1 MiB to the disk took {flush:.1f} s: checkpoints are slow.", remedy
        )
    if abs(off := float(answer.value("clock_difference", 0.0))) > LATE:
        yield Finding(
            "disk", "warning", f"The clock of its file system is {off:+.0f} s off this machine's.", "set both clocks"
        )


def judge_space(folder: Path, free: int, files: int | None) -> Finding:
    """Say whether a file system has room for runs, given its free bytes and the files that may still be made."""
    words = f"Runs are written to {folder}, where {_size(free)} are free"
    data = {"folder": str(folder), "free": free, "files": files}
    remedy = "free some space, or choose another place with --run-dir"
    if free < LEAST_SPACE:
        return Finding("disk", "fault", f"{words}: too little for a run.", remedy, data)
    if files is not None and files < 100:
        return Finding("disk", "fault", f"{words}, and no more than {files} files can be made.", remedy, data)
    if free < TIGHT_SPACE:
        return Finding("disk", "warning", f"{words}: a long run with checkpoints may fill it.", remedy, data)
    return Finding("disk", "ok", f"{words}.", data=data)


def locks(place: Path = Path("runs")) -> Iterator[Finding]:
    """Look for runs that processes work on, and for damaged ones."""
    if not place.is_dir():
        return
    try:
        found = find_runs(place)
    except JumarError as error:
        yield Finding("runs", "warning", str(error))
        return
    running = [str(run.path) for run in found if run.state == "running"]
    damaged = [str(run.path) for run in found if run.state == "damaged"]
    words = f"{counted(len(found), 'run')} in {place}" + (
        f"; a process works on {', '.join(running[:5])}" if running else ""
    )
    yield Finding("runs", "ok", f"{words}.", data={"running": running, "damaged": damaged})
    if damaged:
        shown = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
        yield Finding("runs", "warning", f"Damaged: {shown}.", f"jumar list runs {place} says what is wrong with each")


# --- what is started -------------------------------------------------------------------------------------------------


def graphics() -> Iterator[Finding]:
    """Look for ways to draw MuJoCo's environments; training needs none."""
    if _version("mujoco") is None:
        yield Finding("graphics", "note", "MuJoCo is not installed, and nothing else of Jumar draws with OpenGL.")
        return
    display = has_display()
    faults = {driver: try_driver(driver, os.environ) for driver in ("egl", "osmesa")}
    faults["glfw"] = try_driver("glfw", os.environ) if display else "there is no display"
    working = [driver for driver, fault in faults.items() if fault is None]
    faults = {driver: fault for driver, fault in faults.items() if fault is not None}
    data = {"working": working, "faults": faults, "display": display}
    if working:
        yield Finding("graphics", "ok", f"MuJoCo can draw with {', '.join(working)}.", data=data)
        return
    reasons = "; ".join(f"{driver}: {fault}" for driver, fault in faults.items())
    yield Finding(
        "graphics", "note", f"MuJoCo cannot draw here, which training does not need ({reasons}).",
        "on Debian and Ubuntu: apt install libegl1 libgl1, or libosmesa6", data,
    )  # fmt: skip


def workers() -> Iterator[Finding]:
    """Step environments in a worker process."""
    answer = ask("workers", seconds=120.0)
    if answer.fault is None:
        yield Finding("workers", "ok", "Environments can be stepped in worker processes.")
    else:
        words = f"Environments cannot be stepped in worker processes: {answer.fault.removesuffix('.')}."
        yield Finding("workers", "warning", words, "train with --workers 0")


def training(seconds: int = TRAINING_SECONDS) -> Iterator[Finding]:
    """Train, save, load and act."""
    answer = ask("training", str(seconds), seconds=seconds + 300.0)
    if answer.fault is not None:
        words = f"A training of {seconds} seconds failed: {answer.fault.removesuffix('.')}."
        yield Finding("training", "fault", words, "jumar train ppo jax/CartPole-v1 --total-timesteps 10000 shows more")
        return
    speed, steps = answer.value("steps_per_second"), answer.value("steps")
    words = f"PPO on jax/CartPole-v1 trained for {steps:,} steps in {seconds} seconds, at {speed or 0:,.0f} steps per second"
    data = {"steps": steps, "steps_per_second": speed, "seconds": answer.value("seconds")}
    if answer.value("same_after_loading"):
        yield Finding("training", "ok", f"{words}; it was saved, loaded again, and acts as before.", data=data)
    else:
        yield Finding("training", "fault", f"{words}; saved and loaded again, it acts otherwise.", None, data)


def checks() -> Iterator[Finding]:
    """Compare some parts with exact results."""
    answer = ask("checks", *CHECKS, seconds=300.0)
    results = [each for each in answer.said if "check" in each]
    failed = [each["check"] for each in results if not each["passed"]]
    if answer.fault is not None:
        yield Finding(
            "verification", "fault", f"jumar verify failed: {answer.fault.removesuffix('.')}.", "jumar verify --quick"
        )
    elif failed:
        words = f"What is computed here is not exact: {', '.join(failed)} failed."
        yield Finding("verification", "fault", words, "jumar verify says by how much; reinstall jax and jaxlib")
    else:
        words = f"{counted(len(results), 'check')} of jumar verify passed: {', '.join(CHECKS)}."
        yield Finding("verification", "ok", words, "jumar verify runs all of them" if not results else None)


LIGHT: Sequence[Examination] = (python, packages, devices, processors, memory, limits, clock, disk, locks, graphics)
"""What takes seconds."""
HEAVY: Sequence[Examination] = (workers, training, checks)
"""What trains and compiles."""


def _size(number: int) -> str:
    """Return bytes in GiB or MiB."""
    return f"{number / GIB:,.1f} GiB" if number >= GIB else f"{number / 2**20:,.0f} MiB"
