"""What is sent of a run's logs: each iteration with its evaluation, and nothing that a tracker could stumble over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import append, evaluation_line, make_run, metrics_line

from jumar.runs import tail
from jumar.tracking.rows import LONGEST_NAME, MOST_NAMES, Row, Rows, evaluated


def everything(rows: Rows) -> list[Row]:
    found: list[Row] = []
    more = True
    while more:
        news, more = rows.read()
        found += news
    return found


def test_an_iteration_comes_with_its_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(1000, 2000), evaluations={2000: 50.0})
    rows = Rows(run)
    first, second = everything(rows)
    assert (first.step, second.step) == (1000, 2000)
    assert first.numbers == metrics_line(1000)
    assert second.numbers == {
        **metrics_line(2000),
        "eval/mean_reward": 50.0,
        "eval/std_reward": 1.0,
        "eval/min_reward": 49.0,
        "eval/max_reward": 51.0,
        "eval/mean_ep_length": 15.0,
        "eval/cut_episodes": 0.0,
    }
    assert everything(rows) == []


def test_an_evaluation_waits_for_the_line_of_its_iteration(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(1000,), evaluations={1000: 10.0, 2000: 20.0})
    rows = Rows(run)
    assert [row.numbers["eval/mean_reward"] for row in everything(rows)] == [10.0]
    append(run.metrics, [metrics_line(2000), metrics_line(3000)])
    assert [row.numbers.get("eval/mean_reward") for row in everything(rows)] == [20.0, None]


def test_many_pieces_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = range(100, 10_001, 100)
    run = make_run(tmp_path / "run", steps=steps, evaluations={step: step / 10 for step in steps if step % 300 == 0})
    whole = everything(Rows(run))
    assert [row.step for row in whole] == list(steps)
    monkeypatch.setattr(tail, "PIECE", 1000)
    assert everything(Rows(run)) == whole


def test_logs_that_were_cut_back_are_read_from_their_beginning(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(1000, 2000, 3000), evaluations={2000: 20.0, 3000: 30.0})
    rows = Rows(run)
    everything(rows)
    for log, kept in ((run.metrics, [metrics_line(1000)]), (run.evaluations, [])):
        log.write_text("")
        append(log, kept)
    append(run.evaluations, [evaluation_line(2000, 21.0)])
    append(run.metrics, [metrics_line(2000)])
    again = everything(rows)
    assert [(row.step, row.numbers.get("eval/mean_reward")) for row in again] == [(1000, None), (2000, 21.0)]


def test_foreign_names_and_values_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(), evaluations={})
    step = '"time/total_timesteps": '
    with run.metrics.open("w") as file:
        file.write(f'{{{step}1, "train/a": 1e400, "train/b": "2", "train/c": [1], "train/d": true, "train/e": NaN}}\n')
        file.write(f'{{{step}2, "step": 7, "_step": 7, "/x": 1, "x/": 1, "_wandb/x": 1, "train/\\u001b[2J": 1}}\n')
        file.write(
            f'{{{step}2, "train/f": 1}}\n{{{step}"3"}}\n{{{step}-1}}\n{{{step}3.5}}\n{{{step}1e300}}\nno JSON\n[1]\n'
        )
        file.write(json.dumps({"time/total_timesteps": 4, "train/" + "x" * LONGEST_NAME: 1, "train/ok": 2}) + "\n")
    rows = Rows(run)
    assert everything(rows) == [
        Row(1, {"time/total_timesteps": 1}),
        Row(2, {"time/total_timesteps": 2}),
        Row(4, {"time/total_timesteps": 4, "train/ok": 2}),
    ]
    assert {"step", "_step", "/x", "x/", "_wandb/x", "train/\x1b[2J"} < rows.left_out
    append(run.metrics, [{"time/total_timesteps": 5, **{f"info/{i}": i for i in range(1000)}}])
    [row] = everything(rows)
    assert len(row.numbers) == MOST_NAMES - 1  # with train/ok
    assert len(rows.left_out) <= MOST_NAMES


def test_an_evaluation_without_numbers_says_nothing() -> None:
    assert evaluated({"step": 5, "mean_return": "1", "returns": 3, "lengths": [None]}) == {}
    assert evaluated({"mean_return": 2, "returns": [1, "x", 3]}) == {
        "eval/mean_reward": 2.0,
        "eval/min_reward": 1.0,
        "eval/max_reward": 3.0,
    }
