"""TOML: what is written is read back the same, by the standard library; and files that anybody may have written."""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.errors import UsageError
from jumar.runs import toml

TEXTS = st.text(st.characters(exclude_categories=("Cs",)))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
DATA = st.recursive(
    st.booleans() | NUMBERS | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=12
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types, 1 and 1.0 and True being different ones."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@settings(deadline=None, max_examples=60)
@given(TEXTS, DATA)
def test_what_is_written_is_read_back_the_same(key: str, value: Any) -> None:
    line = f"{toml.key(key)} = {toml.value(value)}"
    assert line.isprintable()
    assert same(tomllib.loads(line), {key: value})


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_a_comment_is_one_line_whatever_is_in_it(text: str) -> None:
    line = toml.comment(text)
    assert line.isprintable()
    assert tomllib.loads(line + "\na = 1\n") == {"a": 1}


def test_numbers_that_json_lacks_and_values_that_toml_lacks() -> None:
    assert math.isnan(tomllib.loads(f"a = {toml.value(math.nan)}")["a"])
    assert tomllib.loads(f"a = {toml.value((math.inf, -math.inf))}")["a"] == [math.inf, -math.inf]
    for wrong in (None, b"bytes", {1: 2}, object()):
        with pytest.raises(TypeError):
            toml.value(wrong)
    for wrong in (2**63, "\ud800"):
        with pytest.raises(ValueError, match=r"64 bits|surrogates"):
            toml.value(wrong)


WRONG = [
    (b"a = 1\nb = none\n", r"x.toml, line 2, column 5: this is not TOML: invalid value; texts stand in quotes\."),
    (b"a = 1\na = 2", r"x.toml, line 2, .*: cannot overwrite a value"),
    (b"a", "x.toml, line 1, "),
    (b'a = """\n', "x.toml, at its end: this is not TOML: unterminated string"),
    (b"a = 1\nb = 1" + b"0" * 300, "x.toml, line 2: b has a whole number with more than 64 bits"),
    (b"b = {c = [0xFFFFFFFFFFFFFFFFFF]}", "x.toml, line 1: b has a whole number with more than 64 bits"),
    (b"a = " + b"9" * 5000, "x.toml cannot be read: a number in it is too long"),
    (b"a = " + b"[" * 50_000, "x.toml cannot be read: it is nested too deep"),
    (b"a = 1\n" + b"a." * 30_000 + b"b = 1", "x.toml, line 2: there are more than 200 dots in this line"),
    (b"#" * 2**16 + b"#", "x.toml has 65,537 bytes; a recipe has at most 65,536"),
    (b"a = '\xff'", "x.toml is not text in UTF-8 .byte 6 is none.; save it as UTF-8"),
    ("a = 1".encode("utf-16"), "x.toml is not text in UTF-8 .it is UTF-16.; save it as UTF-8"),
    (b'a = "\x00"', "x.toml, line 1, column 6: this is not TOML: illegal character"),
]


@pytest.mark.parametrize(("data", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_cannot_be_read_is_said_with_its_place(data: bytes, message: str) -> None:
    Path("x.toml").write_bytes(data)
    with pytest.raises(UsageError, match=message) as raised:
        toml.read("x.toml", "recipe")
    assert len(str(raised.value)) < 300


def test_a_byte_order_mark_and_line_ends_of_other_systems_are_no_fault() -> None:
    Path("x.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")
    document = toml.read("x.toml", "recipe")
    assert document.values == {"a": 1, "b": 2}
    assert (document.line_of("a"), document.line_of("b")) == (1, 2)


def test_only_plain_files_are_read() -> None:
    os.mkfifo("pipe.toml")
    Path("real.toml").write_text("a = 1")
    os.symlink("real.toml", "link.toml")
    os.symlink("nothing", "dangling.toml")
    assert toml.read("link.toml", "recipe").values == {"a": 1}
    for path, message in {
        "pipe.toml": "pipe.toml is a pipe, a socket or a device; a recipe is a plain file",
        "/dev/zero": "/dev/zero is a pipe, a socket or a device",
        ".": ". is a folder; a recipe is a plain file",
        "dangling.toml": "dangling.toml is a link that leads nowhere",
        "rael.toml": "there is no recipe rael.toml; did you mean real.toml",
        "no/where.toml": "there is no recipe no/where.toml",
    }.items():
        with pytest.raises(UsageError, match=message):
            toml.read(path, "recipe")


def test_the_line_of_a_key_is_found() -> None:
    text = 'first = """\nsecond = 1\n"""\n\n"second" = 2 # here\nthird.inner = 1\n[fourth]\nfirst = 1\nfifth = 1\n[[sixth]]\n'
    document = toml.Document("x.toml", tomllib.loads(text), text)
    assert {key: document.line_of(key) for key in document.values} == {
        "first": 1,
        "second": 5,
        "third": 6,
        "fourth": 7,
        "sixth": 10,
    }
    assert document.place("second") == "x.toml, line 5"
    assert document.place("nowhere") == "x.toml"
