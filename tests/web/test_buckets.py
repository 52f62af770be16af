"""The numbers of logs fit into bounded memory, and no peak is lost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.runs.logs import finite
from jumar.web.buckets import MOST_NAMES, Buckets


def rows_of(values: list[float | None]) -> list[dict[str, float | None]]:
    return [{"step": i + 1, "y": value} for i, value in enumerate(values)]


@settings(deadline=None)
@given(
    st.lists(st.none() | st.floats(-1e6, 1e6), max_size=100),
    st.integers(1, 7),
    st.integers(1, 9),
    st.sampled_from([2, 8, 128]),
)
def test_buckets_keep_what_a_whole_log_has(
    values: list[float | None], at_a_time: int, most: int, capacity: int
) -> None:
    buckets, rows = Buckets("step", capacity=capacity), rows_of(values)
    for start in range(0, len(rows), at_a_time):
        buckets.add(rows[start : start + at_a_time])
    points = buckets.points("y", most)
    assert len(points.x) <= most
    known = [value for value in values if value is not None]
    if not known:
        assert not points.known
        return
    width = buckets.merged_lines("y", most)
    parts = [[v for v in values[i : i + width] if v is not None] for i in range(0, len(values), width)]
    assert len(points.x) == len(parts)
    for i, part in enumerate(parts):
        assert points.x[i] == min((i + 1) * width, len(values))
        if part:
            np.testing.assert_allclose(points.mean[i], np.mean(part), rtol=1e-9, atol=1e-6)
            assert (points.low[i], points.high[i]) == (min(part), max(part))
        else:
            assert np.isnan(points.mean[i])


def test_foreign_lines_neither_break_nor_swell_the_buckets() -> None:
    buckets = Buckets("step")
    lines = ['{"step": 1, "y": 1e400, "z": "2", "w": [1], "b": true}', '{"step": NaN, "y": 1}', '{"step": 1, "y": 5}']
    lines += ['{"step": 2, "y": 1' + "0" * 400 + "}", '{"step": 3, "y": 1e299}', '{"step": "4", "y": 1}', '{"y": 1}']
    buckets.add([json.loads(line) for line in lines])
    assert (buckets.names, buckets.lines, buckets.passed_over) == (["step", "y"], 3, 4)
    assert buckets.last["y"] == 1e299
    buckets.add([{"step": 5, **{f"n{i}": 1.0 for i in range(1000)}, "x" * 500: 1.0}])
    assert len(buckets.names) == MOST_NAMES
    assert buckets.left_out


@pytest.mark.parametrize("value", [True, "1", None, [1], float("nan"), float("inf"), 10**400, 1e305])
def test_what_is_no_number_that_can_be_drawn_is_none(value: object) -> None:
    assert finite(value) is None
