"""The documentation says what there is: names, settings, links, commands and examples."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import jumar
from jumar import _stable_baselines3
from jumar.agents import agent as agents
from jumar.algorithms import registry
from jumar.algorithms.registry import ALGORITHMS
from jumar.cli.grammar import build, find_algorithm
from jumar.lab.examples import EXAMPLES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LEARN = sorted((DOCS / "learn").glob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(DOCS / "api").glob("*.md"), *LEARN])
INTERNAL = (
    "jumar.cli",
    "jumar.drills",
    "jumar.export",
    "jumar.studies",
    "jumar.training",
    "jumar.cluster",
    "jumar.collecting",
    "jumar.lanes",
    "jumar.envs",
    "jumar.runs",
    "jumar.console",
    "jumar.xla",
    "jumar.algorithms",
    "jumar.verification",
    "jumar.tracking",
    "jumar.web",
    "jumar.video",
)
"""Packages that are not public as a whole."""
PUBLIC_INSIDE = (
    "jumar.export.graph",
    "jumar.export.onnx_file",
    "jumar.studies",
    "jumar.studies.compare",
    "jumar.studies.methods",
    "jumar.studies.compare_request",
    "jumar.studies.pruning",
    "jumar.studies.space",
    "jumar.studies.sweep",
    "jumar.studies.trials",
    "jumar.studies.where",
    "jumar.training.events",
    "jumar.envs.compiled",
    "jumar.envs.compiled_check",
    "jumar.envs.classic_control",
    "jumar.envs.game_2048",
    "jumar.algorithms.on_policy.a2c",
    "jumar.algorithms.off_policy.acer",
    "jumar.algorithms.on_policy.cpo",
    "jumar.algorithms.on_policy.ispg",
    "jumar.algorithms.on_policy.acktr",
    "jumar.algorithms.on_policy.npg",
    "jumar.algorithms.on_policy.update",
    "jumar.algorithms.on_policy.parts",
    "jumar.algorithms.on_policy.ppo",
    "jumar.algorithms.registry",
    "jumar.algorithms.off_policy.acer_update",
    "jumar.algorithms.off_policy.cadence",
    "jumar.algorithms.off_policy.choices",
    "jumar.algorithms.off_policy.ddpg",
    "jumar.algorithms.off_policy.overestimation",
    "jumar.algorithms.off_policy.parts",
    "jumar.algorithms.off_policy.sac",
    "jumar.algorithms.off_policy.settings",
    "jumar.algorithms.off_policy.td3",
    "jumar.algorithms.off_policy.temperature",
    "jumar.algorithms.off_policy.update",
    "jumar.algorithms.on_policy.reinforce",
    "jumar.algorithms.on_policy.restricted",
    "jumar.algorithms.settings",
    "jumar.algorithms.on_policy.trpo",
    "jumar.console.streams",
    "jumar.algorithms.on_policy.valuations",
    "jumar.algorithms.on_policy.costs",
    "jumar.algorithms.update",
)

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the pages are not part of an installed package")


def public_modules() -> list[str]:
    """Every module of the package but the internal ones, so that a new one is public until somebody says otherwise."""
    names = [found.name for found in pkgutil.walk_packages(jumar.__path__, "jumar.")]
    internal = [name for name in names if name.startswith(INTERNAL) or name.split(".")[-1].startswith("_")]
    return [name for name in names if name not in internal or name in PUBLIC_INSIDE]


MODULES = public_modules()


def test_public_modules_are_found() -> None:
    assert {"jumar.estimators", "jumar.solvers.epochs", *PUBLIC_INSIDE} <= set(MODULES)
    assert "jumar.training.loop" not in MODULES


def public_things(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions, classes, and methods and properties of classes, that the module itself defines."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            for member_name, member in vars(thing).items():
                if not member_name.startswith("_") and is_documentable(member):
                    yield f"{name}.{member_name}", member


def is_documentable(member: Any) -> bool:
    kinds = (classmethod, staticmethod, property, functools.cached_property)
    return inspect.isfunction(member) or isinstance(member, kinds)


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    # A dataclass or named tuple without a text of its own is given its signature as one.
    silent = [
        label
        for label, thing in public_things(module)
        if not (thing.__doc__ or "").strip() or thing.__doc__.startswith(f"{label}(")
    ]
    assert not silent


@pytest.mark.parametrize("name", MODULES)
def test_every_public_module_is_in_the_api_pages(name: str) -> None:
    pages = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    assert re.search(rf"^\.\. automodule:: {re.escape(name)}$", pages, re.MULTILINE)


def test_the_names_of_the_package_can_be_had_and_are_documented() -> None:
    for name in jumar.__all__:
        thing = getattr(jumar, name)
        home = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
        assert name == "__version__" or home in MODULES


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=lambda entry: entry.name)
def test_every_setting_is_on_the_page_of_its_algorithm(algorithm: Any) -> None:
    page = (DOCS / f"{algorithm.name}.md").read_text()
    settings = algorithm.settings
    assert f"{{settings-table}} {settings.__module__}:{settings.__name__}" in page
    if "## Coming from" not in page:
        return
    by_hand = {
        name for row in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert by_hand == {field.name for field in dataclasses.fields(settings)}


def load_extension() -> ModuleType:
    spec = importlib.util.spec_from_file_location("jumar_tables", DOCS / "_ext" / "jumar_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_have_every_setting_and_every_option() -> None:
    pytest.importorskip("sphinx")
    tables = load_extension()
    settings = ALGORITHMS["ppo"].settings
    rows = {row[0]: row for group in tables.settings_rows(settings).values() for row in group}
    assert sorted(rows) == sorted(f"`{field.name}`" for field in dataclasses.fields(settings))
    assert rows["`gamma`"] == ("`gamma`", "`0.99`", "a number, at least 0 and at most 1", "discount factor")
    assert rows["`batch_size`"][1:3] == ("`64`", "a whole number, at least 1")
    options = {row[0]: row[1] for group in tables.option_rows("train").values() for row in group}
    assert {"`--seed N`", "`ENV`", "`--quiet`"} <= set(options)
    assert not any("gamma" in name for name in options)
    trained = tables.trained_rows(["CartPole-v1", "Pendulum-v1", "HalfCheetah-v5"])
    assert [row[0] for row in trained] == [f"`{name}`" for name in ALGORITHMS if name != "bc"]
    examples = tables.example_rows("all")
    assert [row[0] for row in examples] == [f"`{name}`" for name in EXAMPLES]
    assert len(tables.example_rows("Decision")) < len(examples)
    assert tables.markdown_table(("a",), [("x|y",)]) == "| a |\n| --- |\n| x\\|y |"


def test_the_page_for_users_of_stable_baselines3_has_the_names_that_errors_know() -> None:
    assert "{names-table} Stable-Baselines3" in (DOCS / "stable-baselines3.md").read_text()
    for table in _stable_baselines3.PLACES.values():
        for name, here in table.items():
            assert here
            assert not here.endswith("."), name
            assert here.count("`") % 2 == 0, name
    if importlib.util.find_spec("sphinx") is not None:
        rows = load_extension().NamesTable.groups(None, "Stable-Baselines3")
        assert sum(map(len, rows.values())) == sum(map(len, _stable_baselines3.PLACES.values()))


LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def heading_anchors(page: Path) -> set[str]:
    text = without_code(page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def without_code(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(without_code(page.read_text())):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in heading_anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_in_the_contents(page: Path) -> None:
    if page.parent == ROOT or (page.name == "index.md" and page.parent == DOCS):
        return
    index = page.parent / "index.md" if page.name != "index.md" else DOCS / "index.md"
    name = page.stem if page.name != "index.md" else f"{page.parent.name}/index"
    assert re.search(rf"^{re.escape(name)}$", index.read_text(), re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The lines of all shell blocks of a page."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


SHELL_LINES = sorted({line for page in PAGES for line in commands(page)})


def jumar_words(line: str) -> list[str] | None:
    """The words after ``jumar``; ``None`` for a line with another command."""
    words = shlex.split(line.partition(" > ")[0])
    while words and "=" in words[0]:
        words.pop(0)
    return words[1:] if words and words[0] == "jumar" else None


JUMAR_LINES = [line for line in SHELL_LINES if jumar_words(line)]


def test_shell_lines_are_found() -> None:
    assert len(JUMAR_LINES) > 20
    assert "make train" in SHELL_LINES


@pytest.mark.parametrize("line", JUMAR_LINES)
def test_commands_parse(line: str) -> None:
    command, *words = jumar_words(line) or []
    algorithm = find_algorithm(words, ALGORITHMS) if command == "train" else None
    _, parsers = build(ALGORITHMS, algorithm)
    if "--help" in words:
        with pytest.raises(SystemExit) as leaving:
            parsers[command].read(words)
        assert leaving.value.code == 0
        return
    arguments = parsers[command].read(words)
    if command == "train" and not (arguments.config or arguments.like):  # the rest is in a file that is not here
        from jumar.cli.train import request_from

        assert request_from(arguments, ALGORITHMS).algorithm == algorithm


def test_the_configuration_file_of_its_page_is_read(tmp_path: Path) -> None:
    from jumar.cli.configured import read_train
    from jumar.cli.train import request_from

    [text] = re.findall(r"^```toml\n(.*?)^```$", (DOCS / "configuration.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "x.toml").write_text(text)
    arguments, base = read_train(["--config", str(tmp_path / "x.toml")], ALGORITHMS)
    request = request_from(arguments, ALGORITHMS, base)
    assert (request.algorithm, request.env, request.total_timesteps) == ("ppo", "jax/CartPole-v1", 100_000)
    assert request.env_kwargs == {"length": 0.7}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    prose = "".join(page.read_text() for page in PAGES)
    targets = set(re.findall(r"`make (\w+)`|^make (\w+)$", prose, re.MULTILINE))
    wanted = {first or second for first, second in targets}
    assert {"train", "test"} <= wanted
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in wanted)


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    [block] = python_blocks(ROOT / "README.md")
    small, replaced = re.subn(r"total_timesteps=[\d_]+", "total_timesteps=1024", block)
    assert replaced == 1
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(small, "README.md", "exec"), scope)  # noqa: S102 (a text of this repository)
    assert re.search(r"mean return \d+\.\d", capsys.readouterr().out)
    assert scope["action"] in scope["env"].action_space
    assert scope["agent"].num_timesteps == 1024
    assert (tmp_path / "cartpole" / "policy.safetensors").is_file()


@pytest.mark.slow
def test_the_example_of_a_comparison_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    [block] = python_blocks(DOCS / "compare.md")
    small, replaced = re.subn(r"total_timesteps=[\d_]+", "total_timesteps=512", block)
    assert replaced == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(small, "compare.md", "exec"), {})  # noqa: S102 (a text of this repository)
    rows = re.findall(r"^(ppo|small steps) (\S+) (\S+) (\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert [row[0] for row in rows] == ["ppo", "small steps"]
    assert all(float(low) <= float(middle) <= float(high) for _, middle, low, high in rows)
    assert (tmp_path / "small_steps" / "report.md").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_are_python(page: Path) -> None:
    for block in python_blocks(page):
        compile(block, str(page), "exec")


def test_the_example_of_the_lab_promises_no_more_than_it_gains(capsys: Any) -> None:
    block, *_ = python_blocks(DOCS / "lab.md")
    exec(compile(block, "lab.md", "exec"), {})  # noqa: S102 (a text of this repository)
    numbers = dict(re.findall(r"^(\w+) (-?\d+\.\d+)$", capsys.readouterr().out, re.MULTILINE))
    gain, promised, distance = (float(numbers[name]) for name in ("gain", "promised", "divergence"))
    assert gain > 0.0
    assert promised == pytest.approx(gain, rel=0.2)
    assert distance == pytest.approx(0.01, rel=0.2)


EXAMPLE = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?")


def assert_prints(printed: str, expected: str) -> None:
    """The same words, and numbers that differ by no more than rounding: one in the last place that is shown."""
    words, wanted_words = (re.sub(r"\s", "", NUMBER.sub("#", text)) for text in (printed, expected))
    assert words == wanted_words
    for found, wanted in zip(NUMBER.findall(printed), NUMBER.findall(expected), strict=True):
        mantissa, _, exponent = wanted.partition("e")
        places = len(mantissa.partition(".")[2])
        unit = 10.0 ** (int(exponent or 0) - places)
        assert abs(float(found) - float(wanted)) <= 1.01 * unit, (found, wanted)


def test_printed_numbers_are_compared_by_their_last_place() -> None:
    assert_prints("J [1.23  -4.]", "J [1.24 -4.]")
    assert_prints("1.3e-05", "1.2e-05")
    for printed, expected in (("1.25", "1.23"), ("J 1", "V 1"), ("1 2", "1"), ("2.0e-05", "1.2e-05")):
        with pytest.raises(AssertionError):
            assert_prints(printed, expected)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in LEARN if page.name != "index.md"], ids=lambda page: page.stem)
def test_the_examples_of_a_lesson_print_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = EXAMPLE.findall(page.read_text())
    assert examples
    scope: dict[str, Any] = {}
    for code, expected in examples:
        exec(compile(code, page.name, "exec"), scope)  # noqa: S102 (a text of this repository)
        assert_prints(capsys.readouterr().out, expected)


def test_lessons_lead_on_to_the_next_one() -> None:
    names = re.findall(r"^([a-z-]+)$", (DOCS / "learn" / "index.md").read_text(), re.MULTILINE)
    assert sorted(f"{name}.md" for name in names) == [page.name for page in LEARN if page.name != "index.md"]
    for number, name in enumerate(names, 1):
        text = (DOCS / "learn" / f"{name}.md").read_text()
        assert text.startswith(f"# {number}. ")
        assert "<summary>Solution</summary>" in text
        following = names[number] if number < len(names) else "index"
        assert f"]({following}.md)" in text.strip().splitlines()[-1]


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(DOCS / "examples")
    yield
    for name in ("workshop", "lander", "own_method", "own_features"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("examples")
def test_the_gymnasium_example_trains_within_its_masks() -> None:
    agent = jumar.PPO("workshop:Workshop-v0", n_steps=64, n_epochs=1, env_kwargs={"hot": 0.0})
    agent.learn(64)
    hot = {"heat": np.full(2, 0.9), "busy": np.zeros(2), "action_mask": np.array([1, 0, 0, 1, 0, 0])}
    drawn = [agent.predict(hot, deterministic=False)[0].tolist() for _ in range(10)]
    assert drawn == [[0, 0]] * 10


@pytest.mark.usefixtures("examples")
def test_the_compiled_example_trains_from_its_id() -> None:
    agent = jumar.PPO("jax/lander:Lander", n_envs=2, n_steps=32, n_epochs=1, env_kwargs={"gravity": 1.2})
    assert agent.learn(64).num_timesteps == 64


@pytest.mark.slow
@pytest.mark.usefixtures("examples")
def test_the_method_of_ones_own_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ALGORITHMS", dict(ALGORITHMS))
    monkeypatch.setattr(agents, "AGENTS", dict(agents.AGENTS))
    assert importlib.import_module("own_method").main(total_timesteps=20_480) > 60.0


@pytest.mark.slow
@pytest.mark.usefixtures("examples")
def test_the_example_of_features_of_ones_own_learns() -> None:
    assert importlib.import_module("own_features").main(total_timesteps=16_384) > 150.0
