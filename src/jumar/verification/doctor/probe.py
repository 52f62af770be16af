"""The probes: each is run in a process of its own, and prints JSON objects, a line each.

``python -m jumar.verification.doctor.probe NAME ARGUMENT...``. What anything else prints goes to standard error.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PIECE = 2**20
"""Bytes that are written to try a disk."""
CANARY_LAYERS = 8
"""Of the program whose results are compared between machines: enough for a difference in a last bit to show."""
CLUSTER_SECONDS = 240.0


def imports(*modules: str) -> None:
    """Import modules one after another, each named before, so that one that crashes is known."""
    for name in modules:
        say(importing=name)
        try:
            module = importlib.import_module(name)
        except Exception as error:
            said(error, module=name)
        else:
            say(module=name, version=str(getattr(module, "__version__", "")))


def devices() -> None:
    """Say what JAX computes on, and which folder keeps compiled programs."""
    from jumar.xla.compiler import prepare_compiler

    warnings: list[str] = []
    folder = prepare_compiler(warnings.append)
    import jax

    began = time.perf_counter()
    found = [{"platform": device.platform, "kind": device.device_kind} for device in jax.devices()]
    result = float(jax.jit(lambda x: x @ x)(jax.numpy.ones((64, 64)))[0, 0])
    say(devices=found, cache=None if folder is None else str(folder), cache_warnings=warnings)
    say(product=result, seconds=time.perf_counter() - began)


def disk(folder: str) -> None:
    """Write, flush, rename, lock and remove a file in a folder, and look at the clock of its file system."""
    with tempfile.TemporaryDirectory(prefix=".jumar-doctor-", dir=folder) as name:
        path = Path(name) / "written"
        before = time.time()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            began = time.perf_counter()
            written = 0
            while written < PIECE:
                written += os.write(descriptor, bytes(PIECE - written))
            os.fsync(descriptor)
            say(flush_seconds=time.perf_counter() - began, clock_difference=os.fstat(descriptor).st_mtime - before)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                say(locks=True)
            except OSError as error:
                say(locks=False, lock_error=error.strerror)
        finally:
            os.close(descriptor)
        os.replace(path, path.with_name("renamed"))
    say(writable=True)


def workers() -> None:
    """Step two environments in a worker process."""
    from jumar.envs.registry import make_host, resolve

    environments = make_host(resolve("gymnasium/CartPole-v1"), 2, workers=1, patience=30.0)
    try:
        import numpy as np

        environments.reset([0, 1])
        environments.step(np.zeros(2, np.int64))
    finally:
        environments.close()
    say(stepped=True)


def training(seconds: str) -> None:
    """Train for some seconds, save, load, and act."""
    import numpy as np

    import jumar

    deadline: list[float] = []

    def until(metrics: Any) -> bool:
        now = time.perf_counter()
        if not deadline:  # the first iteration compiles
            deadline.append(now + float(seconds))
        return now < deadline[0]

    with tempfile.TemporaryDirectory(prefix="jumar-doctor-") as folder:
        run = Path(folder) / "run"
        began = time.perf_counter()
        agent = jumar.PPO("jax/CartPole-v1", seed=0, preset="none", n_envs=8, n_steps=128)
        agent.learn(10**9, callback=until, run_dir=run)
        from jumar.runs import logs

        entry = logs.read_last(run / "metrics.jsonl")
        say(
            steps=agent.num_timesteps,
            steps_per_second=entry.get("time/steps_per_second"),
            mean_return=entry.get("rollout/ep_rew_mean"),
        )
        loaded = jumar.load(run)
        observations = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
        same = np.array_equal(loaded.predict(observations)[0], agent.predict(observations)[0])
        say(same_after_loading=bool(same), seconds=time.perf_counter() - began)


def checks(*names: str) -> None:
    """Run some checks of ``jumar verify``."""
    from jumar.verification import registry
    from jumar.xla.compiler import prepare_compiler

    prepare_compiler(lambda words: None)
    for each in registry.select(registry.checks(), names):
        result = registry.run_one(each)
        say(check=each.name, passed=result.passed, measured=repr(result.measured), failure=result.error)


def canary() -> None:
    """Compile and run a small program as training does, and say the digest of what it computes."""
    import hashlib

    from jumar.xla.compiler import prepare_compiler

    prepare_compiler(lambda words: None)
    import jax
    import numpy as np

    @jax.jit
    def program(x: Any, weights: Any) -> Any:
        for _ in range(CANARY_LAYERS):
            x = jax.numpy.tanh(x @ weights)
            x = x - jax.nn.logsumexp(x, axis=-1, keepdims=True)
        return x, jax.numpy.mean(x, axis=0)

    generator = np.random.default_rng(0)
    results = program(*(generator.normal(size=shape).astype(np.float32) for shape in ((96, 64), (64, 64))))
    say(digest=hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in results)).hexdigest())


def cluster(address: str, folder: str) -> None:
    """Join a Ray cluster, and say what each of its nodes says, and what this machine says of itself."""
    from jumar.cluster.nodes import ask_each, first_words, names, nodes
    from jumar.cluster.ray_session import open_session
    from jumar.errors import JumarError
    from jumar.verification.doctor.on_nodes import describe

    try:
        session = open_session(address, 1, "--address")
    except JumarError as error:
        say(error=str(error))
        return
    with session, tempfile.NamedTemporaryFile(prefix=".jumar-doctor-", dir=folder) as file:
        file.write(os.urandom(16).hex().encode())
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        mine = describe(file.name)
        say(here=mine)
        answers = ask_each(session, nodes(session), describe, file.name, seconds=CLUSTER_SECONDS)
        for (node, answer), name in zip(answers.items(), names(list(answers)), strict=True):
            if isinstance(answer, Exception):
                say(node=name, processors=node.processors, raised=first_words(answer))
            else:
                say(**answer, node=name, processors=node.processors, seen=answer["word"] == mine["word"])


PROBES: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (imports, devices, disk, workers, training, checks, canary, cluster)
}


def say(**words: Any) -> None:
    """Print a JSON object."""
    _out.write(json.dumps(words) + "\n")
    _out.flush()


def said(error: BaseException, **words: Any) -> None:
    """Say what was raised, under ``raised`` beside other words, else under ``error``."""
    first = (str(error).strip().splitlines() or [""])[0]
    told = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        told = error.strerror + (f": {error.filename}" if error.filename else "")
    say(**({**words, "raised": told} if words else {"error": told}))


def main() -> int:
    """Run the probe that the arguments name."""
    name, *arguments = sys.argv[1:]
    try:
        PROBES[name](*arguments)
    except Exception as error:
        said(error)
        return 1
    return 0


_out = sys.stdout
if __name__ == "__main__":
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.exit(main())
