"""Where runs are trained: what goes together, and what is refused before anything begins."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from jumar.cli import main
from jumar.cli.grammar import build
from jumar.cli.options.places import PLACES
from jumar.errors import UsageError
from jumar.runs.entries import Layout
from jumar.studies import where as places
from jumar.studies.attempts import ATTEMPTS
from jumar.studies.given import GivenJobs
from jumar.studies.processes import Processes
from jumar.studies.where import Where, opened

COMPARE = ["--algorithms", "ppo", "--envs", "jax/CartPole-v1", "--total-timesteps", "64", "--out", "c"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"on": "moon"}, "unknown place 'moon'; known: local, ray, slurm."),
        ({"address": "10.0.0.1:6379"}, "--address is for --on ray, and this is --on local."),
        ({"on": "ray", "slurm_options": "--time=1"}, "--slurm-options is for --on slurm, and this is --on ray."),
        ({"processors": 0}, "processors=0 is out of range"),
        ({"on": "slurm", "slurm_options": "-a 3"}, "--slurm-options must not have -a"),
    ],
)
def test_what_does_not_go_together_is_refused(told: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Where(**told).check()
    assert words in str(caught.value)


def test_the_command_line_knows_the_same_places() -> None:
    assert places.PLACES == PLACES
    _, parsers = build({})
    for command, words in (("compare", COMPARE), ("sweep", ["space.toml"])):
        arguments = parsers[command].read(
            [*words, "--on", "slurm", "--slurm-options=--time=4:00 --partition=a", "--processors", "2"]
        )
        assert isinstance(arguments, argparse.Namespace)
        assert (arguments.on, arguments.slurm_options, arguments.processors) == (
            "slurm",
            "--time=4:00 --partition=a",
            2,
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "mars"], "unknown place 'mars'"),
        (["--address", "a:1"], "--address is for --on ray"),
        (["--on", "ray", "--address", "here"], "'here' is not HOST:PORT"),
        (["--on", "slurm"], "there is no sbatch here"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["compare", *COMPARE, *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(Path().glob("c/runs/*"))


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_its_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *COMPARE, "--on", "ray"]) == 2
    assert "--on ray needs Ray, which is not installed: pip install 'jumar[ray]'." in capsys.readouterr().err


def test_a_sweep_over_slurm_must_say_how_many_trials_train_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    Path("space.toml").write_text(
        'algorithm = "ppo"\nenv = "jax/CartPole-v1"\ntotal_timesteps = 64\nsampler = "random"\n'
        "[search]\ngamma = { low = 0.9, high = 0.99 }\n"
    )
    assert main(["sweep", "space.toml", "--out", "d", "--on", "slurm"]) == 2
    assert "--on slurm needs --parallel N" in capsys.readouterr().err


def test_at_home_what_tasks_of_a_cluster_have_left_is_brought_home(tmp_path: Path) -> None:
    jobs = GivenJobs(tmp_path)
    jobs.write(jobs.place(), "x", ["list"], tmp_path / "runs/x", tmp_path / "x.log", 1)
    with opened(Where(processors=3), tmp_path, [].append) as executor:
        assert executor == Processes(3)
        assert not (tmp_path / ATTEMPTS).exists()


def test_temporary_files_are_left_alone_where_jobs_may_be_at_work() -> None:
    layout = Layout(folders={"runs": Layout(), "logs": Layout(), ATTEMPTS: Layout()})
    assert Where().own(layout) == layout
    assert set(Where(on="slurm").own(layout).folders) == {"logs"}
