"""Atomic writes, JSON that knows when it was changed, arrays by name, and the pair of policy files."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.drills.disk_faults import MODES, Killed, after_every_fault, faults
from jumar.errors import DamagedFile, UsageError
from jumar.runs import entries, files, policy_files
from jumar.runs.files import (
    arrays_to_tree,
    encode_json,
    pack_arrays,
    read_json,
    tree_to_arrays,
    unpack_arrays,
    write_atomically,
    write_json,
    write_new,
)
from jumar.runs.policy_files import read_policy_files, repair_policy_files, write_policy_files

END = b"\n}\n"


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# Atomic writes


def test_atomic_write_is_old_or_new_at_every_fault(tmp_path: Path) -> None:
    old, new = b"old" * 100, b"new" * 200
    seen = after_every_fault(
        tmp_path,
        prepare=lambda folder: write_atomically(folder / "file", old),
        act=lambda folder: write_atomically(folder / "file", new),
        observe=lambda folder: (folder / "file").read_bytes(),
    )
    for mode in MODES:
        assert set(seen[mode]) == {old, new}


@pytest.mark.parametrize(("mode", "at"), [("error", 1), ("error", 2), ("error", 3), ("error", 4), ("full", 2)])
def test_failed_atomic_write_leaves_no_temporary(tmp_path: Path, mode: str, at: int) -> None:
    with faults(mode, at), pytest.raises(OSError, match="No space left"):  # in open, write, fsync, replace
        write_atomically(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_whole_and_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film"
    write_new(path, b"first")
    for refused in (False, True):
        if refused:  # a file system without a second name for a file

            def no_link(*names: Any) -> None:
                raise OSError(1, "Operation not permitted")

            monkeypatch.setattr(os, "link", no_link)
        with pytest.raises(FileExistsError):
            write_new(path, b"second")
        write_new(tmp_path / f"other{refused}", b"third")
    assert path.read_bytes() == b"first"
    assert visible(tmp_path) == ["film", "otherFalse", "otherTrue"]
    assert (tmp_path / "otherTrue").read_bytes() == b"third"


def test_flushed_before_renamed(tmp_path: Path) -> None:
    with faults() as watched:
        write_atomically(tmp_path / "file", b"data")
    assert watched.names == ["open", "write", "fsync", "replace", "fsync"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / ".file.0123abcd.tmp").write_bytes(b"half")
    mine = [".hidden", ".note.tmp", ".other.0123abcd.tmp", ".file.0123abc.tmp", ".file.0123abcg.tmp"]
    for name in mine:
        (tmp_path / name).write_bytes(b"mine")
    entries.remove_temporaries(tmp_path, entries.Layout(entries.exactly("file")))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*mine, "file"])


# JSON

texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts.filter(lambda key: key != "$float"), inner),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(texts.filter(lambda key: key not in files.RESERVED), values, max_size=4))
def test_json_comes_back_as_it_was(data: dict[str, Any]) -> None:
    back = files.decode_json(encode_json("thing", data), "file", "thing")
    assert repr(back) == repr(data)  # repr: NaN is not equal to itself, and 1 == 1.0 == True


def test_json_is_for_people_too(tmp_path: Path) -> None:
    write_json(tmp_path / "f", "thing", {"gamma": 0.99, "best": -math.inf, "nets": (64, 64)}, {"a.safetensors": "ab"})
    content = json.loads((tmp_path / "f").read_text())
    assert list(content) == ["format", "what", "gamma", "best", "nets", "arrays", "digest"]
    assert content["best"] == {"$float": "-inf"}
    assert (tmp_path / "f").read_bytes().endswith(b"}\n")
    expected = {"gamma": 0.99, "best": -math.inf, "nets": [64, 64], "arrays": {"a.safetensors": "ab"}}
    assert read_json(tmp_path / "f", "thing") == expected


def test_json_takes_numbers_of_numpy_and_jax(tmp_path: Path) -> None:
    write_json(
        tmp_path / "f", "thing", {"a": np.float32(0.5), "b": jnp.int32(3), "c": np.arange(2), "d": np.bool_(True)}
    )
    assert read_json(tmp_path / "f", "thing") == {"a": 0.5, "b": 3, "c": [0, 1], "d": True}


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "f", "thing", {"a": 1})
    with pytest.raises(TypeError, match="object is not data"):
        write_json(tmp_path / "f", "thing", {"a": object()})
    with pytest.raises(TypeError, match="a key in JSON is a text, not 3"):
        write_json(tmp_path / "f", "thing", {"a": {3: 4}})
    with pytest.raises(ValueError, match="'digest' is reserved"):
        write_json(tmp_path / "f", "thing", {"digest": "x"})
    assert read_json(tmp_path / "f", "thing") == {"a": 1}


def test_every_changed_byte_of_json_is_noticed() -> None:
    text = encode_json("thing", {"gamma": 0.99, "best": math.nan, "n": [1, None, True], "é": "ü"}, {"x": "0" * 64})
    for offset in range(len(text)):
        for flip in (1, 2, 32, 128):
            changed = text[:offset] + bytes([text[offset] ^ flip]) + text[offset + 1 :]
            with pytest.raises(DamagedFile):
                files.decode_json(changed, "file", "thing")
        with pytest.raises(DamagedFile):
            files.decode_json(text[:offset], "file", "thing")
        for extra in (b" ", b"\n", b"0"):
            with pytest.raises(DamagedFile):
                files.decode_json(text[:offset] + extra + text[offset:], "file", "thing")
    assert files.decode_json(text, "file", "thing")["n"] == [1, None, True]


class Canary:
    """Makes a pickle that leaves a mark if anybody loads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def foreign_files() -> dict[str, bytes]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("data.pkl", pickle.dumps(Canary()))
    return {
        "empty": b"",
        "pickle": pickle.dumps(Canary()),
        "pickle, text protocol": pickle.dumps(Canary(), protocol=0),
        "zip": archive.getvalue(),
        "web page": b"<!doctype html><html></html>",
        "list": b"[1, 2]\n",
        "number": b"12",
        "plain JSON": b'{"a": 1}',
        "no kind": b'{"format": 1}',
        "text for a version": b'{"format": "1"}',
        "true for a version": b'{"format": true}',
        "version 0": b'{"format": 0}',
        "deep": b"[" * 100_000,
        "deep object": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        "long number": b'{"format": ' + b"1" * 5_000 + b"}",
        "not ASCII": "é".encode(),
        "not a number": b'{"format": NaN}',
    }


@pytest.mark.parametrize("name", foreign_files())
def test_foreign_files_are_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    content = foreign_files()[name]
    (tmp_path / "policy.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"policy\.json (is not a policy that Jumar wrote|was changed)"):
        read_json(tmp_path / "policy.json", "policy")
    with pytest.raises(DamagedFile, match="is not an array file"):
        unpack_arrays(content, "policy.safetensors")
    assert not (tmp_path / "executed").exists()


def test_newer_versions_and_other_kinds_are_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"format": 4, "what": "policy"}')
    with pytest.raises(DamagedFile, match=r"written by a newer Jumar \(format 4, this one reads up to 3\)"):
        read_json(tmp_path / "f", "policy")
    write_json(tmp_path / "f", "checkpoint", {})
    with pytest.raises(DamagedFile, match="is not a policy: Jumar wrote it as a checkpoint"):
        read_json(tmp_path / "f", "policy")


@pytest.mark.parametrize("level", ['{"a":', "[", '[{"a":'])
def test_data_nested_too_deep_are_refused(level: str) -> None:
    closing = {"{": "}", "[": "]"}
    end = "".join(closing[c] for c in reversed(level) if c in closing)
    for depth, deep in ((50, False), (198 // len(end), False), (300, True), (100_000, True)):
        body = '{\n  "format": 3,\n  "what": "thing",\n  "x": ' + level * depth + "1" + end * depth
        text = body.encode() + f',\n  "digest": "{files.sha256(body.encode() + END)}"'.encode() + END
        if deep:
            with pytest.raises(DamagedFile, match=r"nested more than 200 deep|is not a thing"):
                files.decode_json(text, "f", "thing")
        else:
            assert files.decode_json(text, "f", "thing")["x"]


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "is a pipe"), (".", "is a folder"), ("none", "is missing")):
        with pytest.raises(DamagedFile, match=said):
            read_json(tmp_path / name, "policy")
    with pytest.raises(DamagedFile, match="is missing"):
        read_json(tmp_path / "pipe" / "x", "policy")
    with pytest.raises(DamagedFile, match="is a device"):
        read_json("/dev/zero", "policy")
    write_json(tmp_path / "f", "policy", {"a": "x" * 100})
    monkeypatch.setattr(files, "LARGEST_JSON", 99)
    with pytest.raises(DamagedFile, match=r"it has 2\d\d bytes"):
        read_json(tmp_path / "f", "policy")
    with pytest.raises(UsageError, match=r"takes \d+ bytes, and at most 99 can be read back"):
        write_json(tmp_path / "f", "policy", {"a": "x" * 100})


# Arrays


class State(NamedTuple):
    weights: Any
    inner: Any
    unused: Any = None


def some_tree() -> State:
    return State(
        weights={"w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3), "b": jnp.float32(0.5)},
        inner=[
            (np.arange(4, dtype=np.int64), np.array(2.5, dtype=np.float64)),
            jax.random.PRNGKey(3),
            np.zeros((0, 4), dtype=np.uint8),
            np.array([True, False]),
            np.arange(12, dtype=np.float32).reshape(3, 4).T[:, ::2],
        ],
    )


def test_arrays_are_named_by_their_place() -> None:
    names = ["weights/b", "weights/w", "inner/0/0", "inner/0/1", "inner/1", "inner/2", "inner/3", "inner/4"]
    assert list(tree_to_arrays(some_tree())) == names
    assert list(tree_to_arrays(np.ones(2))) == ["array"]


def test_a_tree_comes_back_bit_for_bit() -> None:
    tree = some_tree()
    back = arrays_to_tree(tree, unpack_arrays(pack_arrays(tree_to_arrays(tree)), "file"))
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for before, after in zip(jax.tree.leaves(tree), jax.tree.leaves(back), strict=True):
        assert isinstance(after, jax.Array) == isinstance(before, jax.Array)
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert np.asarray(after).tobytes() == np.asarray(before).tobytes()


def test_shapes_alone_will_do_as_a_template() -> None:
    tree = {"w": jnp.ones((2, 2)), "n": jnp.int32(1)}
    template = jax.eval_shape(lambda: tree)
    back = arrays_to_tree(template, tree_to_arrays(tree))
    assert back["w"].tolist() == [[1, 1], [1, 1]]
    assert back["n"].shape == ()


def test_packed_bytes_depend_on_the_arrays_alone() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.array(1, np.float32)
    packed = pack_arrays({"a": a, "b": b})
    assert packed == pack_arrays({"b": b, "a": a})
    assert packed == pack_arrays({"a": np.asfortranarray(a), "b": b})
    assert packed == pack_arrays({"a": a.astype(">f8"), "b": b})
    assert packed != pack_arrays({"a": a, "b": b + 1})


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"w": np.ones((2, 3))}, r"'b' is missing"),
        ({"w": np.ones((2, 3)), "b": np.ones(3), "c/0": np.ones(1)}, r"'c/0' is not expected"),
        ({"w": np.ones((2, 3)), "b": np.ones(3), "x" * 5000: np.ones(1)}, r"'x{99} is not expected"),
        ({"w": np.ones((3, 2)), "b": np.ones(3)}, r"'w' in state is float64\[3, 2\]; float64\[2, 3\] is expected"),
        ({"w": np.ones((2, 3)), "b": np.ones(3, np.float32)}, r"'b' in state is float32\[3\]; float64\[3\] is exp"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(DamagedFile, match=said):
        arrays_to_tree({"w": np.ones((2, 3)), "b": np.ones(3)}, arrays, "state")


def test_trees_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(ValueError, match="two arrays of the tree have the name 'a/b'"):
        tree_to_arrays({"a": {"b": 1.0}, "a/b": 2.0})
    with pytest.raises(TypeError, match="w is not an array of numbers"):
        tree_to_arrays({"w": np.array([object()])})


def test_array_files_cut_anywhere_are_refused() -> None:
    packed = pack_arrays({"a": np.arange(3.0), "b": np.ones((), np.int32)})
    for length in range(len(packed)):
        with pytest.raises(DamagedFile):
            unpack_arrays(packed[:length], "file")


# The pair of policy files

OLD = ({"w": np.zeros(50)}, {"name": "old"})
NEW = ({"w": np.ones(60)}, {"name": "new"})


def policy_seen(folder: Path) -> str | None:
    try:
        arrays, description = read_policy_files(folder)
    except UsageError:
        return None
    saved = {"old": OLD, "new": NEW}[description["name"]]
    assert description == saved[1]
    assert arrays["w"].tobytes() == saved[0]["w"].tobytes()
    return description["name"]


def test_policy_pair_is_old_or_new_at_every_fault(tmp_path: Path) -> None:
    seen = after_every_fault(
        tmp_path,
        lambda folder: write_policy_files(folder, *OLD),
        lambda folder: write_policy_files(folder, *NEW),
        policy_seen,
    )
    for mode in MODES:
        assert set(seen[mode]) == {"old", "new"}
    assert seen["kill"] == sorted(seen["kill"], reverse=True)  # never back to the old one


def test_first_policy_is_none_or_whole_at_every_fault(tmp_path: Path) -> None:
    seen = after_every_fault(
        tmp_path, lambda folder: None, lambda folder: write_policy_files(folder, *NEW), policy_seen
    )
    assert set(seen["kill"]) == {None, "new"}


def test_a_save_after_any_cut_short_save_is_again_safe_at_every_fault(tmp_path: Path) -> None:
    def prepare(folder: Path) -> None:
        write_policy_files(folder, *OLD)
        with pytest.MonkeyPatch.context() as patch:  # the new pair is committed; its arrays still wait
            patch.setattr(os, "replace", lambda a, b: None if str(b).endswith(".safetensors") else os.rename(a, b))
            write_policy_files(folder, *NEW)
        assert policy_seen(folder) == "new"
        assert visible(folder) == ["policy.json", "policy.safetensors", "policy.safetensors.new"]

    seen = after_every_fault(tmp_path, prepare, lambda folder: write_policy_files(folder, *OLD), policy_seen)
    assert set(seen["kill"]) == {"old", "new"}


def test_repair_leaves_the_pair_alone_at_every_fault(tmp_path: Path) -> None:
    write_policy_files(tmp_path / "whole", *OLD)
    with faults() as counted:
        write_policy_files(tmp_path / "whole", *NEW)
    for at in range(1, counted.count + 1):
        folder = tmp_path / str(at)
        write_policy_files(folder, *OLD)
        with faults("kill", at) as injected, suppress(Killed):
            write_policy_files(folder, *NEW)
        injected.lose_unflushed(folder)
        before = policy_seen(folder)
        repair_policy_files(folder)
        assert policy_seen(folder) == before
        assert visible(folder) == ["policy.json", "policy.safetensors"]


def test_policy_arrays_do_not_depend_on_the_description(tmp_path: Path) -> None:
    write_policy_files(tmp_path / "a", OLD[0], {"run": 1})
    write_policy_files(tmp_path / "b", OLD[0], {"run": 2, "wall_time": 3.5})
    assert (tmp_path / "a/policy.safetensors").read_bytes() == (tmp_path / "b/policy.safetensors").read_bytes()


def test_every_changed_byte_of_a_policy_is_noticed(tmp_path: Path) -> None:
    write_policy_files(tmp_path, {"w": np.arange(3, dtype=np.float32)}, {"name": "x"})
    for name in ("policy.json", "policy.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for offset in range(len(whole)):
            (tmp_path / name).write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
            with pytest.raises(DamagedFile, match="policy"):
                read_policy_files(tmp_path)
        (tmp_path / name).write_bytes(whole)
    assert read_policy_files(tmp_path)[1] == {"name": "x"}


def test_half_a_policy_and_none_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no policy in .*: it has no policy\.json"):
        read_policy_files(tmp_path)
    write_policy_files(tmp_path, *OLD)
    (tmp_path / "policy.safetensors").unlink()
    with pytest.raises(DamagedFile, match=r"policy\.safetensors is missing"):
        read_policy_files(tmp_path)


def test_a_reader_survives_a_writer_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_policy_files(tmp_path, *OLD)
    read, looks = policy_files.read_bytes, []

    def read_while_written(*args: Any) -> bytes:
        data = read(*args)
        looks.append(args)
        if len(looks) == 1:  # the description was just read, its arrays not yet
            write_policy_files(tmp_path, *NEW)
        return data

    monkeypatch.setattr(policy_files, "read_bytes", read_while_written)
    assert policy_seen(tmp_path) == "new"
