"""Comparisons and sweeps over Ray and SLURM end with the files of local ones, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_slurm
import pytest

from jumar.cli import main
from jumar.cluster import ray_session

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")
pytestmark = pytest.mark.slow

A2C = "a2c:n_envs=2,n_steps=32,net_arch=8,preset=none"
WORDS = ["--algorithms", A2C, "--envs", "gymnasium/CartPole-v1", "--seeds", "3", "--processors", "1"]
WORDS += ["--total-timesteps", "6400", "--eval-every", "1600", "--eval-episodes", "1", "--last", "2"]
SPACE = """
algorithm = "a2c"
env = "jax/CartPole-v1"
total_timesteps = 1_024
seeds = 2
trials = 4
sampler = "random"
pruner = "none"
preset = "none"
eval_every = 512
eval_episodes = 1
last = 1

[settings]
n_envs = 2
net_arch = "8"

[search]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""


def jumar(*words: str | Path) -> tuple[int, dict[str, Any], str]:
    """Run the command in this process; return its exit code, what ``--json`` prints, and what it says beside it."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main([*map(str, words), "--json"])
    return code, json.loads(output.getvalue().splitlines()[-1]), errors.getvalue()


def policies(out: Path) -> dict[str, str]:
    """Return the digest of each final policy, by the path of its run."""
    found = [path for path in out.rglob("policy.safetensors") if path.parent.name != "best"]
    return {str(path.parent.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def waited_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The policies of a comparison on this machine that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "c"
    code, _, said = jumar("compare", *WORDS, "--out", out)
    assert code == 0, said
    found = policies(out)
    assert len(set(found.values())) == 3
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster that the tests of this module share: a head, two nodes of one processor, and a token that they demand."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MODE", "token"), ("TOKEN", secrets.token_hex(32))):
            patch.setenv(f"RAY_AUTH_{name}", value)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray  # which looks at them when it is imported
        from ray.cluster_utils import Cluster

        ray_session._forget_token()
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, handler)
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def killed_when(true: Callable[[], bool], *words: str | Path, **options: Any) -> None:
    """Begin a command, and kill it at that moment."""
    with subprocess.Popen(
        [sys.executable, "-m", "jumar", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    ) as process:
        try:
            waited_until(lambda: true() or process.poll() is not None)
            assert process.poll() is None
        finally:
            process.kill()


def of_session(session: int, words: bytes) -> list[int]:
    """Return the processes of a session whose command line has these words in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words in path.read_bytes() and os.getsid(int(path.parent.name)) == session:
                found.append(int(path.parent.name))
    return found


# --- Ray --------------------------------------------------------------------------------------------------------------


@needs_ray
def test_a_comparison_over_ray_has_the_results_of_a_local_one(
    whole: dict[str, str], cluster: Any, tmp_path: Path
) -> None:
    code, answer, said = jumar("compare", *WORDS, "--on", "ray", "--out", tmp_path / "c")
    assert (code, answer["failed"]) == (0, 0), said
    assert policies(tmp_path / "c") == whole
    assert not (tmp_path / "c" / "attempts").exists()


@needs_ray
def test_a_task_whose_process_is_killed_is_given_again(whole: dict[str, str], cluster: Any, tmp_path: Path) -> None:
    """The process of Ray's that does the task is killed, as the system does where memory is short."""
    out, victims = tmp_path / "c", list[int]()

    def kill_one() -> None:
        waited_until(lambda: any(out.glob("runs/*/*/seed_1/metrics.jsonl")))
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if cmdline.read_bytes().startswith(b"ray::a2c") and not victims:
                    victims.append(int(cmdline.parent.name))
                    os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    code, answer, said = jumar("compare", *WORDS, "--on", "ray", "--out", out)
    killer.join()
    assert len(victims) == 1
    assert (code, answer["failed"]) == (0, 0), said
    assert "It is given again." in said
    assert policies(out) == whole


@needs_ray
def test_a_comparison_over_ray_that_is_killed_goes_on(whole: dict[str, str], cluster: Any, tmp_path: Path) -> None:
    out = tmp_path / "c"
    over_there = ["compare", *WORDS, "--on", "ray", "--address", cluster.address, "--out", out]
    killed_when(lambda: any(out.glob("runs/*/*/seed_1/metrics.jsonl")), *over_there)
    assert policies(out) != whole
    code, answer, said = jumar("compare", *WORDS, "--on", "ray", "--out", out)
    assert (code, answer["failed"]) == (0, 0), said
    assert policies(out) == whole


@needs_ray
def test_a_ray_that_dies_is_told_of_and_the_comparison_goes_on(whole: dict[str, str], tmp_path: Path) -> None:
    """A local one: the process that knows its tasks is killed. The runs go on elsewhere, here in processes."""
    out = tmp_path / "c"
    command = [sys.executable, "-m", "jumar", "compare", *WORDS, "--on", "ray", "--out", str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        waited_until(lambda: any(out.glob("runs/*/*/seed_1/metrics.jsonl")))
        [head] = of_session(process.pid, b"gcs_server")
        tasks = of_session(process.pid, b"ray::a2c")
        for task in tasks:  # so that none is over before the dead head is noticed
            os.kill(task, signal.SIGSTOP)
        os.kill(head, signal.SIGKILL)
        said, _ = process.communicate(timeout=240)
    for task in tasks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(task, signal.SIGKILL)
    assert process.returncode == 1, said
    assert "is gone (Connection refused); what the runs saved is safe, and the same command goes on with them." in said
    code, answer, said = jumar("compare", *WORDS, "--out", out)
    assert (code, answer["failed"]) == (0, 0), said
    assert policies(out) == whole


@needs_ray
@needs_optuna
def test_a_sweep_over_ray_that_is_killed_ends_like_a_local_one(cluster: Any, tmp_path: Path) -> None:
    Path("space.toml").write_text(SPACE)
    common = ["sweep", "space.toml", "--parallel", "2", "--processors", "1"]
    code, _, said = jumar(*common, "--out", "whole")
    assert code == 0, said
    killed_when(lambda: any(Path("c").rglob("policy.json")), *common, "--on", "ray", "--out", "c")
    code, _, said = jumar(*common, "--on", "ray", "--out", "c")
    assert code == 0, said
    assert Path("c/trials.csv").read_text() == Path("whole/trials.csv").read_text()
    assert policies(Path("c")) == policies(Path("whole"))


@needs_ray
def test_a_folder_that_a_node_does_not_see_is_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jumar.studies import given

    monkeypatch.setattr(given.GivenJobs, "new_probe", lambda self, path: "never written")
    code, answer, _ = jumar("compare", *WORDS, "--on", "ray", "--out", tmp_path / "c")
    assert code == 2
    assert f"does not see {tmp_path / 'c'}; runs must be kept on a file system that all nodes share" in answer["error"]
    assert not (tmp_path / "c" / "runs").exists()


@needs_ray
def test_the_doctor_finds_the_cluster_well(cluster: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--address", cluster.address, "--json"])
    found = {each["name"]: each for each in json.loads(capfd.readouterr().out.splitlines()[-1])["findings"]}
    assert {name: each["status"] for name, each in found.items() if each["status"] in ("fault", "note")} == {}
    assert code == 0
    assert set(found) == {"cluster", "versions", "processors", "folder", "memory"}
    assert "3 nodes with 2 processors" in found["cluster"]["words"]


@needs_ray
def test_a_comparison_survives_one_of_its_nodes(whole: dict[str, str], cluster: Any, tmp_path: Path) -> None:
    """The last test of the cluster, which has one node less afterwards."""
    out = tmp_path / "c"

    def remove_one() -> None:
        waited_until(lambda: any(out.glob("runs/*/*/seed_1/metrics.jsonl")))
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    killer = threading.Thread(target=remove_one)
    killer.start()
    code, answer, said = jumar("compare", *WORDS, "--on", "ray", "--out", out)
    killer.join()
    assert (code, answer["failed"]) == (0, 0), said
    assert "died. It is given again." in said
    assert policies(out) == whole


# --- SLURM ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for SLURM with two slots, on this machine."""
    for name, value in fake_slurm.install(tmp_path / "slurm", 2).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "slurm"


def test_a_comparison_over_slurm_that_is_killed_is_taken_up(whole: dict[str, str], slurm: Path, tmp_path: Path) -> None:
    """Its jobs go on meanwhile, and none is submitted twice."""
    out = tmp_path / "c"
    killed_when(
        lambda: any(out.glob("runs/*/*/seed_1/metrics.jsonl")), "compare", *WORDS, "--on", "slurm", "--out", out
    )
    assert len(fake_slurm.tasks(slurm)) == 3
    code, answer, said = jumar("compare", *WORDS, "--on", "slurm", "--out", out)
    assert (code, answer["failed"]) == (0, 0), said
    assert policies(out) == whole
    assert [task["state"] for task in fake_slurm.tasks(slurm)] == ["COMPLETED"] * 3
    assert not (out / "attempts").exists()


@pytest.mark.parametrize("locks", [True, False])
def test_a_job_whose_node_dies_is_given_again(
    locks: bool, whole: dict[str, str], slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks do not reach the nodes, its attempts are made beside the run, and the second goes on from the first."""
    from jumar.studies import given, slurm_arrays

    if not locks:
        monkeypatch.setattr(given, "LOCK", ".held_by_nobody")

    quick = functools.partial(slurm_arrays.SlurmArrays, ask_queue=1.0, unseen=2.0)
    monkeypatch.setattr(slurm_arrays, "SlurmArrays", quick)
    out = tmp_path / "c"

    def kill_one() -> None:
        run = "runs/*/*/seed_1" if locks else "attempts/*/1.run"
        waited_until(lambda: any(out.glob(f"{run}/checkpoints/0*")))
        [victim] = [task for task in fake_slurm.tasks(slurm) if task["index"] == 1]
        fake_slurm.kill_node(slurm, victim)

    killer = threading.Thread(target=kill_one)
    killer.start()
    code, answer, said = jumar("compare", *WORDS, "--on", "slurm", "--out", out)
    killer.join()
    assert (code, answer["failed"]) == (0, 0), said
    assert "ended on node1 (NODE_FAIL) without saying how. It is given again." in said
    assert len(fake_slurm.tasks(slurm)) == 4
    assert policies(out) == whole


def test_a_stop_lets_jobs_save_and_empties_the_queue(whole: dict[str, str], slurm: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    command = [sys.executable, "-m", "jumar", "compare", *WORDS, "--on", "slurm", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        waited_until(lambda: any(out.glob("runs/*/*/seed_1/metrics.jsonl")))
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 130, said
    assert all(task["state"] not in ("PENDING", "RUNNING") for task in fake_slurm.tasks(slurm))
    code, answer, said = jumar("compare", *WORDS, "--out", out)  # and it may go on elsewhere
    assert (code, answer["failed"]) == (0, 0), said
    assert policies(out) == whole


@needs_optuna
def test_a_sweep_over_slurm_ends_like_a_local_one(slurm: Path, tmp_path: Path) -> None:
    Path("space.toml").write_text(SPACE.replace("trials = 4", "trials = 2"))
    common = ["sweep", "space.toml", "--parallel", "2", "--processors", "1"]
    assert jumar(*common, "--out", "whole")[0] == 0
    code, _, said = jumar(*common, "--on", "slurm", "--slurm-options=--time=1:00:00", "--out", "c")
    assert code == 0, said
    assert Path("c/trials.csv").read_text() == Path("whole/trials.csv").read_text()
    assert policies(Path("c")) == policies(Path("whole"))
