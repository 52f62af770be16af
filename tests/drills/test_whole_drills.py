"""Some drills from their command to their table. All of them are `make drills`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jumar.drills import command
from jumar.drills.references import CASES, References

SOME = (
    "environments/here",
    "kills/at-operations",
    "signals/stop",
    "streams",
    "entries",
    "files/damaged",
    "limits/open-files",
)


@pytest.mark.slow
def test_drills_lose_nothing() -> None:
    assert command.main([*SOME, "--tries", "2", "--seed", "5", "--out", "x"]) == 0
    found = json.loads(Path("x/drills.json").read_text())["drills"]
    assert [each["tries"] for each in found] == [2] * len(found)
    assert not Path("x/lost").exists()


@pytest.mark.slow
def test_a_run_of_the_users_own_is_killed_and_what_is_not_seeded_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    Path("clocked.py").write_text(
        "import time, gymnasium as gym\n"
        "from jumar.drills.faulty import Walk\n"
        "class Clocked(Walk):\n"
        "    def step(self, action):\n"
        "        observation, reward, *rest = super().step(action)\n"
        "        return observation, reward + time.time() % 1, *rest\n"
        "gym.register('Clocked-v0', 'clocked:Clocked')\n"
    )
    small = "--n-envs 2 --n-steps 32 --net-arch 8 --preset none --workers 0"
    words = ["--tries", "1", "--total-timesteps", "2000", "--checkpoint-every", "500", "--train", small, "--out", "x"]
    assert command.main(["--env", "clocked:Clocked-v0", *words]) == 1
    assert "policy.safetensors is another one than that of a run that nothing disturbed" in capsys.readouterr().out


@pytest.mark.slow
def test_what_differs_from_an_undisturbed_run_is_said(tmp_path: Path) -> None:
    reference = References(tmp_path).of("short")
    assert reference.case is CASES["short"]
    assert 0.0 < reference.training < reference.seconds
    copy = reference.copy(tmp_path / "copy")
    assert reference.difference(copy) is None
    log = copy / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]))
    assert reference.difference(copy) == "./metrics.jsonl has other lines than that of a run that nothing disturbed"
    log.write_text("".join(lines))
    (copy / "replay").mkdir()
    (copy / "replay" / "x").write_text("")
    assert (reference.difference(copy) or "").startswith("replay/ has other segments")
    (copy / "policy.safetensors").unlink()
    assert (reference.difference(copy) or "").startswith("./policy.safetensors is another one")
    halved = reference.copy(tmp_path / "halved", reference.half)
    assert sorted(path.name for path in (halved / "checkpoints").iterdir()) == [f"{reference.half:012d}"]
