"""Files that were changed in a thousand ways are read or refused in a sentence; and what goes wrong in a reader is found."""

from __future__ import annotations

import json
import os
import random
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.drills.fuzzing import attempts, campaign
from jumar.drills.fuzzing.attempts import Attempts
from jumar.drills.fuzzing.campaign import Campaign, Finding
from jumar.drills.fuzzing.corpus import make_corpus
from jumar.drills.fuzzing.mutations import LEFT_OUT, at, changed, forged, mutated_bytes, mutated_data, places
from jumar.drills.fuzzing.targets import TARGETS, Target
from jumar.errors import DamagedFile
from jumar.runs.files import read_json, write_json

TRIES = 1000


def test_a_thousand_changed_files_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    make_corpus(tmp_path / "corpus", replay=False)
    drawn = ("logs, drawn", "evaluations, drawn")  # pictures take long
    names = [target.name for target in TARGETS if target.name not in drawn]
    tries = Attempts(tmp_path / "corpus", 1, names, crashing=False, every=20)
    found = [(number, *tries.attempt(number)) for number in range(TRIES)]
    assert [each for each in found if each[2] is not None] == []
    assert {what for _, what, _ in found} == set(tries.names())
    assert len(tries.names()) >= 15


# What goes wrong is found --------------------------------------------------------------------------------------------


def broken(text: str, folder: Path) -> None:
    raise KeyError(text)


def careless(text: str, folder: Path) -> None:
    (folder / "file").write_text("mine")


def littering(text: str, folder: Path) -> None:
    (folder / "new").write_text("mine")


class Rude(DamagedFile):
    def __str__(self) -> str:
        return 5000 * "x"


def rude(text: str, folder: Path) -> None:
    raise Rude


def trusting(text: str, folder: Path) -> None:
    return None


def slow(text: str, folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (broken, r"KeyError: 'changed' \(test_fuzzing\.py:\d+\)"),
        (careless, "reading changed a file"),
        (littering, "reading changed a file"),
        (rude, "a message of 5000 characters"),
        (trusting, "a changed file was read as if it were sound"),
        (slow, r"reading took \d+ s"),
    ],
)
def test_what_goes_wrong_in_a_reader_is_found(
    reader: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(folder: Path) -> object:
        text = (folder / "file").read_text()
        return "sound" if text == "sound" else reader(text, folder)

    def mutate(path: Path, chance: random.Random) -> bool:
        path.write_text("changed")
        return reader is trusting

    (tmp_path / "file").write_text("sound")
    monkeypatch.setattr(attempts, "TARGETS", [Target("odd", "file", (read,), mutate)])
    monkeypatch.setattr(attempts, "LONGEST_READING", -1.0 if reader is slow else 10.0)
    tries = Attempts(tmp_path, 0)
    what, wrong = tries.attempt(0)
    assert what == "odd"
    assert re.fullmatch(f".*: {said}", wrong or ""), wrong
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "sound"


CHILD = """
    import json, sys, time
    start, count = int(sys.argv[3]), int(sys.argv[4])
    for number in range(start, start + count):
        print(number, flush=True)
        if number == 2:
            print(json.dumps({"number": 2, "what": "policy.json", "wrong": "KeyError"}), flush=True)
        if number == 4:
            sys.exit("out of reach")
        if number == 6:
            time.sleep(600)
    print("end", flush=True)
"""


def test_a_process_that_dies_or_hangs_is_named_and_the_next_try_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    (tmp_path / "corpus").mkdir()
    monkeypatch.setattr(campaign, "SILENCE", 1.0)
    heard: list[int] = []
    found = list(Campaign(tmp_path / "corpus", 0, 9, heard=heard.append, program=(str(script),)).run())
    assert found == [
        Finding(2, "policy.json", "KeyError"),
        Finding(4, "", "the process ended with exit code 1: out of reach"),
        Finding(6, "", "the process hung"),
    ]
    assert heard == list(range(9))


@pytest.mark.slow
def test_a_campaign_in_its_own_process_watches_what_readers_do(tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus")
    heard: list[int] = []
    assert list(Campaign(tmp_path / "corpus", 3, 300, heard=heard.append).run()) == []
    assert heard == list(range(300))


# Changes -------------------------------------------------------------------------------------------------------------

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5), DATA, min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(data=OBJECTS, seed=st.integers(0, 10**6))
def test_changes_leave_what_they_were_given_alone_and_are_the_same_for_a_seed(data: Any, seed: int) -> None:
    before = json.dumps(data)
    first, second = (mutated_data(data, random.Random(seed)) for _ in range(2))
    assert repr(first) == repr(second)
    assert json.dumps(data) == before
    raw = before.encode()
    assert mutated_bytes(raw, random.Random(seed)) == mutated_bytes(raw, random.Random(seed))


def test_numbers_beyond_all_floats_are_changed_too() -> None:
    found = [mutated_data({"a": 10**400}, random.Random(seed)) for seed in range(200)]
    assert {"a": 10**400 + 1} in found


def test_a_value_is_replaced_or_left_out_at_its_place() -> None:
    data = {"a": [1, {"b": 2}], "c": 3}
    assert list(places(data)) == [("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("c",)]
    assert at(data, ("a", 1, "b")) == 2
    assert changed(data, ("a", 1, "b"), 5) == {"a": [1, {"b": 5}], "c": 3}
    assert changed(data, ("a", 1), LEFT_OUT) == {"a": [1], "c": 3}
    assert data == {"a": [1, {"b": 2}], "c": 3}


def test_a_forged_file_is_read_as_if_it_were_sound(tmp_path: Path) -> None:
    write_json(tmp_path / "x", "policy", {"a": 1, "b": [0.5]})
    sound = (tmp_path / "x").read_bytes()
    assert forged("policy", read_json(tmp_path / "x", "policy")) == sound
    (tmp_path / "x").write_bytes(forged("policy", {"a": 2}))
    assert read_json(tmp_path / "x", "policy") == {"a": 2}
