"""Runners on Ray: the same policy whatever their number, and whatever becomes of them. One Ray serves all tests here."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from walks import Clocked, Walk

import jumar
from jumar.cli import main
from jumar.cluster.ray_session import RaySession, open_session
from jumar.errors import EnvironmentFault, UsageError
from jumar.lanes import ray_crew
from jumar.lanes.supervisor import NoRunners, Patience

pytestmark = pytest.mark.slow
pytest.importorskip("ray")

SMALL = ["--n-envs", "5", "--net-arch", "8", "--eval-every", "0", "--quiet"]
PPO = [
    "ppo",
    "walks:LaneTrapped-v0",
    "--n-steps",
    "32",
    "--n-epochs",
    "1",
    "--batch-size",
    "32",
    *SMALL,
    "--recurrent",
    "gru",
]
PPO += ["--recurrent-size", "4", "--normalize-observations", "--total-timesteps", "640", "--checkpoint-every", "320"]
TD3 = [
    "td3",
    "walks:LaneWalk-v0",
    "--train-freq",
    "10",
    "--log-every",
    "100",
    "--learning-starts",
    "100",
    "--batch-size",
    "16",
]
TD3 += [*SMALL, "--action-noise", "normal:0.1", "--buffer-size", "1000", "--total-timesteps", "400"]


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[RaySession]:
    with open_session(None, 4, "the tests") as opened:
        yield opened


def done(*words: Any) -> dict[str, Any]:
    """Run the command in this process; return what ``--json`` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        code = main([*map(str, words), "--json"])
    answer = json.loads(output.getvalue().splitlines()[-1])
    assert code == 0, answer
    return answer


def policy(run: Path) -> bytes:
    return (run / "policy.safetensors").read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the policies of runs whose lanes are stepped in one process."""
    folder = tmp_path_factory.mktemp("expected")
    for name, words in {"ppo": PPO, "td3": TD3}.items():
        done("train", *words, "--runners", "0", "--run-dir", folder / name)
    return {name: policy(folder / name) for name in ("ppo", "td3")}


@pytest.mark.parametrize("runners", [1, 2, 3])
def test_the_policy_is_the_same_whatever_the_number_of_runners(runners: int, expected: Any, tmp_path: Path) -> None:
    done("train", *PPO, "--runners", runners, "--run-dir", tmp_path / "run")
    assert policy(tmp_path / "run") == expected["ppo"]


def test_an_off_policy_run_is_the_same(expected: Any, tmp_path: Path) -> None:
    done("train", *TD3, "--runners", "2", "--run-dir", tmp_path / "run")
    assert policy(tmp_path / "run") == expected["td3"]


def test_a_run_may_go_on_with_another_number_of_runners(expected: Any, tmp_path: Path) -> None:
    done("train", *PPO, "--total-timesteps", "320", "--runners", "2", "--run-dir", tmp_path / "run")
    done("resume", tmp_path / "run", "--env", PPO[1], "--total-timesteps", "640", "--runners", "3")
    assert policy(tmp_path / "run") == expected["ppo"]


@pytest.mark.parametrize("fault", ["kill", "hang", "stop"])
def test_a_runner_that_is_lost_in_the_middle_changes_nothing(
    fault: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_crew, "PATIENCE", Patience(silence=4.0, floor=0.5))
    trap = tmp_path / "trap"
    trap.write_text(fault)
    done("train", *PPO, "--env-kwargs", f"trap={trap}", "--runners", "2", "--run-dir", tmp_path / "run")
    assert not trap.exists(), "it was sprung"
    done("train", *PPO, "--env-kwargs", f"trap={trap}", "--runners", "0", "--run-dir", tmp_path / "again")
    assert policy(tmp_path / "run") == policy(tmp_path / "again")


def agent_of(make: Any, runners: int) -> Any:
    return jumar.PPO(make, runners=runners, n_envs=4, n_steps=16, batch_size=16, n_epochs=1, net_arch=(8,))


def processes(agent: Any) -> dict[int, int]:
    """Return the runners' process ids."""
    return agent._training.runner._lanes._crew._transport.processes


def numbers(agent: Any) -> bytes:
    return np.asarray(ravel_pytree(agent.actor().parameters)[0]).tobytes()


def test_runners_that_are_killed_at_any_moment_change_nothing() -> None:
    agent, killed = agent_of(Walk, 2), []

    def kill() -> None:
        for i in range(4):
            time.sleep(0.7)
            if process := processes(agent).get(i % 2):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

    killer = threading.Thread(target=kill)
    killer.start()
    while killer.is_alive():
        agent.learn(64)
    agent.learn(64 * 4)
    again = agent_of(Walk, 0)
    while again.num_timesteps < agent.num_timesteps - 64 * 4:
        again.learn(64)
    again.learn(64 * 4)
    assert killed
    assert numbers(agent) == numbers(again)
    for each in (agent, again):
        each.close()


def test_an_environment_that_cannot_be_rebuilt_is_named_when_a_runner_is_lost() -> None:
    agent = agent_of(lambda: Clocked(after=24), 2)

    def kill(metrics: Any) -> None:
        if agent.num_timesteps == 128:  # beyond what a trial shows
            os.kill(processes(agent)[0], signal.SIGKILL)

    with pytest.raises(EnvironmentFault, match="is not deterministic: an episode repeated with the seed"):
        agent.learn(64 * 4, callback=kill)
    assert agent.num_timesteps >= 64, "what was learnt before is kept"
    agent.close()


def test_a_node_that_differs_is_named_and_a_missing_module_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ray_crew, "differences", lambda here, there: "numpy is 1.0 there")
        with pytest.raises(UsageError, match=r"^node 127\.0\.0\.1 cannot take part: numpy is 1\.0 there\.$"):
            agent_of(Walk, 1)

    def absent() -> Any:
        import no_such_module_anywhere  # type: ignore[import-not-found]

        return no_such_module_anywhere.Env()

    def elsewhere() -> Any:
        return Walk() if os.getpid() == home else absent()

    home = os.getpid()
    with pytest.raises(UsageError, match=r"^node 127\.0\.0\.1 cannot make .*No module named 'no_such_module_anywhere'"):
        agent_of(elsewhere, 1)


def test_training_ends_where_all_runners_are_lost_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_crew, "PATIENCE", Patience(most_losses=2))
    home = os.getpid()

    class Deadly(Clocked):
        def step(self, action: Any) -> Any:
            if self.steps > 24 and os.getpid() != home:
                os._exit(3)
            return super().step(action)

    agent = agent_of(lambda: Deadly(after=10**9), 1)
    with pytest.raises(NoRunners, match=r"2 runners in a row were lost while they stepped environments 0 to 3 of"):
        agent.learn(64 * 4)
    assert agent.num_timesteps == 64
    agent.close()


def test_a_signal_ends_the_runners_and_their_ray_and_the_run_goes_on_without_them(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "jumar",
        "train",
        *PPO,
        "--runners",
        "2",
        "--run-dir",
        "run",
        "--total-timesteps",
        "200000",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.2)
    children = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    deadline = time.monotonic() + 20
    while left := [child for child in children if alive(child)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    done("resume", tmp_path / "run", "--env", PPO[1], "--total-timesteps", "1280")


def descendants(process: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            found.append((int(status.parent.name), int(fields[1])))
    below, new = {process}, {process}
    while new:
        new = {child for child, parent in found if parent in new} - below
        below |= new
    return sorted(below - {process})


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
