"""What makes a runner unfit, in words: versions, code and processors that differ from this process's."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from jumar.lanes.handshake import allowed, differences, level
from jumar.lanes.runner_process import look

HERE = {**look(), "instructions": "AVX512", "processor": "x86_64"}


def test_this_process_is_fit_for_itself() -> None:
    found = look()
    assert differences(found, look()) == ""
    assert found["python"] == platform.python_version()
    assert len(found["code"] or "") == 64


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"numpy": "0.9"}, f"numpy is 0.9 there and {HERE['numpy']} here; install the same on all nodes"),
        ({"jumar": None}, f"jumar is not installed there; install jumar {HERE['jumar']}, as here"),
        ({"python": "3.9.1"}, f"python is 3.9.1 there and {platform.python_version()} here"),
        ({"code": "0"}, "the code of its Jumar is not the same as here, although the version is"),
        ({"processor": "aarch64"}, "its processor is aarch64 and this one x86_64, which round differently"),
        ({"instructions": "AVX2"}, "its processor has AVX2 and this one AVX512, which round differently; start with "
         "XLA_FLAGS=--xla_cpu_max_isa=AVX2"),
        ({"instructions": "AVX512_VNNI"}, "start with XLA_FLAGS=--xla_cpu_max_isa=AVX512"),
    ],
)  # fmt: skip
def test_each_difference_is_named_with_its_remedy(
    there: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert words in differences(HERE, {**HERE, **there})


def test_processors_that_are_held_to_the_same_instructions_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--foo=1 --xla_cpu_max_isa=avx2 --bar")
    assert allowed() == "AVX2"
    assert differences(HERE, {**HERE, "instructions": "AVX2"}) == ""
    assert differences(HERE, {**HERE, "instructions": "AMX"}) == ""
    assert differences(HERE, {**HERE, "instructions": "AVX"}) != ""


def test_instructions_are_ordered() -> None:
    names = ["SSE4_2", "AVX", "AVX2", "AVX512", "AVX512_VNNI", "AVX512_BF16", "AMX", "AMX_FP16"]
    assert [level(name, None) for name in names] == list(range(8))
    assert level(None, None) == 0
