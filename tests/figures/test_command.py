"""``jumar figure``: what is written where, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jumar import cli
from jumar.figures.registry import FIGURES


def answered(capsys: Any, *words: str) -> tuple[int, str, str]:
    code = cli.main(["figure", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_list_has_a_line_for_each_figure_the_name_first(capsys: Any) -> None:
    code, out, _ = answered(capsys, "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(FIGURES)
    [line] = [line for line in out.splitlines() if line.startswith("overestimation")]
    assert "slow" in line
    code, out, _ = answered(capsys, "--list", "--json")
    listed = json.loads(out.splitlines()[-1])["figures"]
    assert [entry["name"] for entry in listed] == list(FIGURES)
    assert set(listed[0]) == {"name", "title", "source", "caption", "slow", "steps"}


def test_one_figure_is_a_file_with_its_data_beside_it(capsys: Any, tmp_path: Path) -> None:
    picture, data = tmp_path / "a.svg", tmp_path / "a.json"
    code, out, _ = answered(capsys, "robot-pipeline", "--out", str(picture), "--data", str(data), "--json")
    assert code == 0
    answer = json.loads(out.splitlines()[-1])
    assert answer["figures"] == ["robot-pipeline"]
    assert answer["files"] == [str(picture), str(data)]
    assert answer["source"] == FIGURES["robot-pipeline"].source
    assert picture.read_bytes().startswith(b"<?xml")
    assert json.loads(data.read_text())["data"]["steps"][-1] == "4  deploy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.svg"]


def test_without_a_file_it_is_named_after_the_figure(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = answered(capsys, "robot-pipeline")
    assert code == 0
    assert FIGURES["robot-pipeline"].caption in out
    assert (tmp_path / "robot-pipeline.png").read_bytes().startswith(b"\x89PNG")


def test_several_figures_are_a_folder_of_both_kinds(capsys: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "figures"
    words = ("robot-pipeline", "12.6", "--out", str(folder), "--data", str(folder), "--json")
    code, out, err = answered(capsys, *words)
    assert code == 0
    answer = json.loads(out.splitlines()[-1])
    assert answer["source"] == {name: FIGURES[name].source for name in ("robot-pipeline", "12.6")}
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.{ending}" for name in answer["figures"] for ending in ("png", "svg", "json")
    )
    assert "12.6: " in err


MISTAKES = [
    ([], "NAME is missing"),
    (["12.8"], "unknown figure '12.8'; did you mean"),
    (["12.6", "--out", "{folder}"], "is a folder; give the path of a file, such as"),
    (["12.6", "--out", "a.jpg"], "does not end in .png or .svg"),
    (["12.6", "--out", "nowhere/a.png"], "does not exist; make it first"),
    (["12.6", "--out", ""], "a path's name is empty"),
    (["12.6", "--data", "{folder}"], "is a folder; give the path of a file, such as"),
    (["12.6", "--out", "a.svg", "--data", "a.svg"], "are both"),
    (["12.6", "bernoulli", "--out", "{file}"], "is a file; several figures are written to a folder"),
    (["12.6", "bernoulli", "--out", "a.png"], "names a file; several figures are written to a folder"),
    (["12.6", "--steps", "5"], "trains nothing; leave --steps 5 out"),
    (["12.6", "--from", "x.json"], "reads no file; leave --from x.json out"),
    (["mujoco-slate", "--from", "x.json"], "is not a file"),
    (["12.6", "--list"], "--list lists all figures"),
    (["12.6", "--step", "5"], "unknown option '--step'; did you mean --steps"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=[sentence for _, sentence in MISTAKES])
def test_mistakes_are_sentences(words: list[str], sentence: str, capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "inside").mkdir()
    filled = [word.format(folder=tmp_path / "inside", file=tmp_path / "file") for word in words]
    code, out, err = answered(capsys, *filled)
    assert code == 2
    assert sentence in err
    assert err.startswith("jumar: error: ")
    assert not out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "inside"]


def test_a_folder_that_cannot_be_made_is_a_mistake(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = answered(capsys, "12.6", "bernoulli", "--out", str(tmp_path / "file" / "inside"))
    assert code == 2
    assert "cannot be made" in err
