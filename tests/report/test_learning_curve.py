"""The learning curve is a picture whatever there is to draw, and never half of one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from jumar.drills.disk_faults import faults
from jumar.report import learning_curve as figure
from jumar.report.learning_curve import learning_curve

PNG = b"\x89PNG\r\n\x1a\n"


def metrics(*values: float | None) -> list[dict[str, Any]]:
    return [{"time/total_timesteps": 100 * n, "rollout/ep_rew_mean": value} for n, value in enumerate(values)]


def evaluations(*returns: list[float]) -> list[dict[str, Any]]:
    return [{"step": 150 * n, "returns": values, "lengths": []} for n, values in enumerate(returns)]


@pytest.mark.parametrize(
    ("training", "evaluated"),
    [
        ([], []),
        (metrics(None, float("nan")), evaluations([])),
        (metrics(1.0), evaluations([2.0])),
        ([{"other": 1}], [{"step": None, "returns": [1.0]}, {"returns": None}]),
        (
            [
                {"time/total_timesteps": 10**400, "rollout/ep_rew_mean": 1.0},
                {"time/total_timesteps": [], "rollout/ep_rew_mean": {}},
            ],
            [{"step": 1, "returns": 3}, {"step": 2, "returns": [10**400, "x"]}, {"step": 3, "returns": [True, 1.0]}],
        ),
        (metrics(None, 2.0, 3.0), evaluations([1.0, 2.0], [3.0, float("inf"), 5.0])),
    ],
)
def test_anything_gives_a_picture(tmp_path: Path, training: Any, evaluated: Any) -> None:
    learning_curve(tmp_path / "curve.png", training, evaluated, "ppo on $E_{0}$, 50 %")
    data = (tmp_path / "curve.png").read_bytes()
    assert data.startswith(PNG)
    assert data.endswith(b"IEND\xaeB`\x82")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


class Recorder:
    """Stands for the axes and keeps what is drawn."""

    def __init__(self) -> None:
        self.drawn: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.drawn.__setitem__(name, args)


def test_the_band_is_a_deviation_within_the_extremes() -> None:
    axes = Recorder()
    figure._draw_evaluations(axes, evaluations([0.0, 0.0, 0.0, 4.0], [1.0, 3.0]))
    steps, mean = axes.drawn["plot"]
    _, low, high = axes.drawn["fill_between"]
    assert steps == [0, 150]
    assert mean.tolist() == [1.0, 2.0]
    assert low.tolist() == [0.0, 1.0]  # mean - deviation = 1 - sqrt(3) lies below the least return
    assert high.tolist() == pytest.approx([1 + 3**0.5, 3.0])


def test_training_points_without_a_value_are_left_out() -> None:
    axes = Recorder()
    figure._draw_training(axes, metrics(None, 2.0, float("nan"), 3.0))
    assert axes.drawn["plot"] == ((100, 300), (2.0, 3.0))


def test_a_full_disk_keeps_the_old_picture(tmp_path: Path) -> None:
    learning_curve(tmp_path / "curve.png", metrics(1.0, 2.0), [], "old")
    old = (tmp_path / "curve.png").read_bytes()
    with faults("full", 1), pytest.raises(OSError, match="No space left"):
        learning_curve(tmp_path / "curve.png", metrics(1.0, 3.0), [], "new")
    assert (tmp_path / "curve.png").read_bytes() == old


def test_the_users_own_plots_are_left_alone(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    learning_curve(tmp_path / "curve.png", metrics(1.0, 2.0), [], "x")
    assert ("matplotlib.pyplot" in sys.modules) == before
