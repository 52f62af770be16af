"""What a space says, and the sentences for what is wrong in one."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from jumar.errors import UsageError
from jumar.studies.pruning import Halving, Median, Never
from jumar.studies.space import Choices, Range, Space, read_space
from jumar.studies.toml_lines import line_of

PAGE = Path(__file__).parents[2] / "docs" / "sweep.md"
HEAD = """\
algorithm = "ppo"
env = "jax/CartPole-v1"
total_timesteps = 1e4
"""
SEARCH = "[search]\n"


def read(text: str, env: str | None = None) -> Space:
    path = Path("space.toml")
    path.write_text(text, encoding="utf-8")
    return read_space(path, env)


def searched(line: str) -> str:
    return HEAD + SEARCH + line + "\n"


def test_a_space_is_read() -> None:
    space = read(
        HEAD
        + """\
seeds = 4
sampler = "random"
pruner = "halving"
reduction_factor = 3
maximize = false
[settings]
n_envs = 8
learning_rate = "linear:3e-4"
[search]
gamma = { low = 0.9, high = 0.999 }
n_steps = { low = 32, high = 100, step = 32 }
clip_range = { low = "linear:0.1", high = "linear:0.3" }
vf_coef = { low = 1e-2, high = 1, log = true }
net_arch = { choices = [[64, 64], [32], []] }
activation = { choices = ["tanh", "relu"] }
target_kl = { choices = ["none", 0.02] }
squash = { choices = [true, false] }
"""
    )
    assert (space.algorithm, space.env, space.total_timesteps, space.seeds) == ("ppo", "jax/CartPole-v1", 10_000, 4)
    assert (space.trials, space.objective, space.maximize, space.steps_between) == (20, "iqm", False, 500)
    assert space.settings == {"n_envs": 8, "learning_rate": "linear:0.0003"}
    assert space.search == {
        "gamma": Range(0.9, 0.999),
        "n_steps": Range(32, 96, step=32, whole=True),
        "clip_range": Range(0.1, 0.3, prefix="linear:"),
        "vf_coef": Range(0.01, 1.0, log=True),
        "net_arch": Choices(([64, 64], [32], [])),
        "activation": Choices(("tanh", "relu")),
        "target_kl": Choices((None, 0.02)),
        "squash": Choices((True, False)),
    }
    assert space.rule == Halving(10, 3)
    assert space.value([1.0, 2.0, 3.0, 10.0]) == 2.5
    assert space.goodness([1.0]) == -1.0


def test_the_rule_is_the_one_that_is_named() -> None:
    line = "gamma = { low = 0.9, high = 1 }"
    assert read(searched(line)).rule == Median(10)
    assert read('pruner = "none"\n' + searched(line)).rule == Never()


def test_values_are_what_was_drawn() -> None:
    assert Range(0.1, 0.3, prefix="linear:").value(0.25) == "linear:0.25"
    assert Range(1, 9, whole=True).value(4) == 4
    assert Choices(([64], [])).value(1) == []
    assert Range(1e-4, 1e-2, log=True).position(1e-3) == pytest.approx(0.5)
    assert Range(0.0, 4.0, prefix="linear:").position("linear:1.0") == 0.25
    assert Choices(("a", "b", "c")).position("c") == 1.0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rte = { low = 1, high = 2 }", "line 5: search.learning_rte: unknown setting 'learning_rte'; did you mean"),
        ("clip_coef = { low = 0.1, high = 0.2 }", "did you mean clip_range?"),
        ("tau = { low = 0.1, high = 0.2 }", "tau is not a setting of ppo, but of"),
        ("gamma = { low = 0.99, high = 0.9 }", "line 5: search.gamma.high: the range of gamma is empty"),
        ("gamma = { low = 0.9, high = 0.9 }", "is a single value, 0.9: write it below [settings]"),
        ("gamma = { low = 0.9, high = 1.5 }", "gamma=1.5 is out of range: it must be at least 0 and at most 1"),
        ("gamma = { low = 0.8, high = 0.9, step = 5e-324 }", "step=5e-324 is too small: the range has more than 1e+12 values"),
        ("gamma = { low = nan, high = 0.9 }", "gamma=nan is out of range"),
        ("gamma = { low = 0.9 }", "high of gamma is missing; write gamma = { low"),
        ("gamma = { low = 0, high = 1, log = true }", "log = true needs a low above 0, and that of gamma is 0.0"),
        ("gamma = { low = 0, high = 1, log = 1 }", "log=1 must be true or false"),
        ("gamma = { low = 0, high = 1, step = 0 }", "step=0 must be a number above 0 and at most 1.0"),
        ("gamma = { low = 0.1, high = 1, step = 0.1, log = true }", "both a step and log = true"),
        ("gamma = { low = 0, high = 1, max = 1 }", "unknown entry of gamma 'max'; did you mean high?"),
        ("gamma = { low = 0, high = 1, choices = [1] }", "gamma has both choices and low"),
        ("gamma = [0.9, 0.99]", "gamma is a list, and it is not clear what of"),
        ("gamma = 0.9", "gamma is a single value; write it below [settings]"),
        ("gamma = { choices = [0.9] }", "choices must be a list of 2 to 1,000 values"),
        ("gamma = { choices = [0.9, 0.99, 0.9] }", "search.gamma.choices: the choice 0.9 of gamma is given twice"),
        ("n_epochs = { choices = [4, 4.0] }", "the choice 4 of n_epochs is given twice"),
        ("gamma = { choices = [0.9, 2] }", "gamma=2 is out of range"),
        ("n_steps = { low = 1.5, high = 3 }", "n_steps=1.5 is not a whole number"),
        ("n_steps = { low = 1, high = 3, step = 0.5 }", "step=0.5 must be a whole number"),
        ("squash = { low = 0, high = 1 }", "squash takes true or false, which has no range"),
        ("net_arch = { low = 8, high = 64 }", "net_arch takes a list of whole numbers"),
        ('clip_range = { low = "linear:0.1", high = 0.3 }', "must have the same schedule"),
        ('clip_range = { low = "exponential:1:2", high = "exponential:1:3" }', "has two numbers; list such schedules"),
        ("gamma = { low = 2020-01-01, high = 1 }", "is not a number"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_search_is_said_with_its_place(line: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(searched(line))
    assert str(caught.value).startswith("space.toml, line 5: search.")
    assert words in str(caught.value)


GOOD = searched("gamma = { low = 0.9, high = 0.99 }")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "space.toml: algorithm is missing; write, say, algorithm = "),
        ('algorithm = "poo"', "space.toml, line 1: unknown algorithm 'poo'; did you mean"),
        ("algorithm = 3", "line 1: algorithm=3 must be a text, in quotes"),
        ('algorithm = "ppo"\ntotal_timesteps = 100', "space.toml: env is missing"),
        (HEAD, "space.toml: there is nothing to search"),
        (HEAD + "search = 3", "line 4: search must be a table"),
        ("n_trials = 3\n" + GOOD, "line 1: unknown entry 'n_trials'; did you mean trials?"),
        ("gamma = 0.9\n" + GOOD, "line 1: gamma is a setting of ppo: write it below [settings]"),
        ("seeds = 0\n" + GOOD, "line 1: seeds=0 is out of range: it must be at least 1"),
        ('sampler = "tep"\n' + GOOD, "line 1: unknown sampler 'tep'; did you mean tpe?"),
        ('sampler = "cmaes"\n' + GOOD, "line 1: sampler=cmaes searches ranges of numbers, at least two"),
        ('pruner = "sha"\n' + GOOD, "did you mean halving?"),
        ("maximize = 1\n" + GOOD, "line 1: maximize=1 must be true or false"),
        ('preset = "mine.toml"\n' + GOOD, "preset=mine.toml is a file"),
        (f"seed = {2**31 - 3}\n" + GOOD, "is out of range"),
        (GOOD + "[settings]\ngamma = 0.9", "line 5: search.gamma: gamma is fixed below [settings]"),
        (GOOD + "[settings]\nn_epochs = { low = 1, high = 2 }", "line 7: settings.n_epochs: n_epochs is to be searched"),
        (GOOD + "[settings]\nn_epochs = 0", "line 7: settings.n_epochs: n_epochs=0 is out of range"),
        (GOOD + "[settings]\nn_epoch = 1", "did you mean n_epochs?"),
        ("a = = 1", "space.toml, line 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_elsewhere_is_said_with_its_place(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert words in str(caught.value)


def test_code_of_the_users_own_must_be_typed() -> None:
    own = GOOD.replace("jax/CartPole-v1", "jax/mine:World")
    with pytest.raises(
        UsageError, match="nothing named by a file is imported; repeat --env jax/mine:World to allow it"
    ):
        read(own)
    assert read(own, "jax/mine:World").env == "jax/mine:World"
    assert read(GOOD, "Acrobot-v1").env == "Acrobot-v1"


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("long").write_bytes(b"# " + b"x" * 2**20)
    Path("latin").write_bytes("# größer".encode("latin-1"))
    Path("nowhere").symlink_to("nothing")
    for name in ("pipe", "folder", "long", "latin", "nowhere", "absent", "/dev/zero"):
        with pytest.raises(UsageError, match=name):
            read_space(name)
    Path("real.toml").write_text(GOOD)
    Path("link.toml").symlink_to("real.toml")
    assert read_space("link.toml").algorithm == "ppo"


@pytest.mark.skipif(not PAGE.exists(), reason="the pages are not part of an installed package")
def test_the_page_on_sweeps_has_a_space_and_every_entry() -> None:
    page = PAGE.read_text()
    block, *_ = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert read(block).algorithm == "ppo"
    rows = {name for row in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert {field.name for field in dataclasses.fields(Space)} - {"settings", "search"} <= rows


def test_the_line_of_an_entry_is_found() -> None:
    text = '''\
# gamma = 1
a = """
gamma = 2
[search]
""" # "
b = [
  "]", # ]
  1,
]
[search]
gamma = { low = 1, # }
  high = 2 }
"quoted.name" = 3
[search.tau]
low = 1
[other]
dotted . low = 4
'''
    places = {
        ("a",): 2,
        ("b",): 6,
        ("search",): 10,
        ("search", "gamma"): 11,
        ("search", "gamma", "high"): 11,
        ("search", "quoted.name"): 13,
        ("search", "tau"): 14,
        ("search", "tau", "low"): 15,
        ("search", "tau", "high"): 14,
        ("other", "dotted", "low"): 17,
        ("absent",): None,
    }
    assert {keys: line_of(text, keys) for keys in places} == places
