"""``--config`` and ``--like``: the command line comes before the file, the file before the preset, that before the defaults."""

from __future__ import annotations

import dataclasses
import sys
import tomllib
from pathlib import Path

import pytest

from jumar.algorithms.registry import ALGORITHMS
from jumar.cli import main
from jumar.cli.configured import EXAMPLES, read_train
from jumar.cli.grammar import build
from jumar.cli.train import request_from
from jumar.console.reporter import Silent
from jumar.errors import UsageError
from jumar.runs import toml
from jumar.runs.run_directory import RunDirectory
from jumar.training.commands import settle
from jumar.training.config_file import COMMAND_LINE_ALONE, CONFIRMED, OPTIONS
from jumar.training.request import TrainRequest

QUIET = Silent()
BASE = 'algorithm = "ppo"\nenv = "jax/CartPole-v1"\n'


def request(text: str | None, *words: str) -> TrainRequest:
    """Return what ``jumar train --config x.toml`` asks for with a file of this text."""
    if text is not None:
        Path("x.toml").write_text(text)
        words = (*words, "--config", "x.toml")
    arguments, base = read_train(words, ALGORITHMS)
    return request_from(arguments, ALGORITHMS, base)


def test_a_file_may_have_every_option_but_those_of_the_command_line_alone() -> None:
    for name, method in ALGORITHMS.items():
        parser = build(ALGORITHMS, name)[1]["train"]
        options = {word[2:].replace("-", "_") for word in parser._option_string_actions if word.startswith("--")}
        options -= {option for option in options if option.startswith("no_")}
        settings = {field.name for field in dataclasses.fields(method.settings)}
        assert options - settings - {"help"} == {*OPTIONS, *COMMAND_LINE_ALONE} - {"algorithm", "env"} - settings
    assert set(CONFIRMED) < set(OPTIONS)
    assert set(EXAMPLES) < set(OPTIONS)


TYPED = """ppo gymnasium/CartPole-v1 --total-timesteps 1e4 --seed 3 --n-envs 5 --preset none --env-kwargs a=1 b=[1,2]
--wrapper TimeLimit:max_episode_steps=9 --frame-stack 2 --workers auto --cost velocity:2 --eval-every 0 --eval-episodes 3
--checkpoint-every 1k --stop-without-gain 4 --log-info a --log-info b --gamma 0.9 --learning-rate linear:1e-3
--net-arch 8,8 --no-normalize-advantage --target-kl none"""


def test_a_file_says_all_that_a_command_says() -> None:
    typed = request(None, *TYPED.split())
    text = """
    algorithm = "ppo"
    env = "gymnasium/CartPole-v1"
    total_timesteps = 1e4
    seed = 3
    n_envs = 5
    preset = "none"
    env_kwargs = {a = 1, b = [1, 2]}
    wrapper = "TimeLimit:max_episode_steps=9"
    frame_stack = 2
    workers = "auto"
    cost = "velocity:2"
    eval_every = 0
    eval_episodes = 3
    checkpoint_every = "1k"
    stop_without_gain = 4
    log_info = ["a", "b"]
    gamma = 0.9
    learning_rate = "linear:1e-3"
    net_arch = [8, 8]
    normalize_advantage = false
    target_kl = "none"
    """
    settings = ALGORITHMS["ppo"].settings
    read = request(text)
    assert settings.make(read.settings) == settings.make(typed.settings)
    assert dataclasses.replace(read, settings={}) == dataclasses.replace(typed, settings={})


def test_the_command_line_comes_first_then_the_file_then_the_preset() -> None:
    text = BASE + "seed = 3\ngamma = 0.5\nn_epochs = 2\nn_envs = 4\nenv_kwargs = {a = 1, b = 2}\nlog_info = ['a']\n"
    text += "wrapper = ['TimeLimit:max_episode_steps=9']\natari = true\nnormalize_advantage = false\n"
    plain = request(text)
    assert (plain.algorithm, plain.env, plain.seed, plain.n_envs, plain.atari) == ("ppo", "jax/CartPole-v1", 3, 4, True)
    assert (plain.env_kwargs, plain.log_info) == ({"a": 1, "b": 2}, ("a",))
    words = "trpo jax/Acrobot-v1 --seed 0 --n-envs 2 --gamma 0.7 --env-kwargs b=3 --log-info c --normalize-advantage"
    text = text.replace("n_epochs = 2\n", "")
    typed = request(text, *words.split(), "--wrapper", "TransformReward")
    assert (typed.algorithm, typed.env, typed.seed, typed.n_envs) == ("trpo", "jax/Acrobot-v1", 0, 2)
    assert (typed.env_kwargs, typed.log_info, typed.wrappers) == ({"a": 1, "b": 3}, ("c",), (("TransformReward", ()),))
    assert {name: str(value) for name, value in typed.settings.items()} == {
        "gamma": "0.7",
        "normalize_advantage": "True",
    }
    Path("tuned.toml").write_text("gamma = 0.1\nn_epochs = 7\nn_steps = 3\n")
    made = settle(request(BASE + "gamma = 0.5\nn_epochs = 2\n", "--preset", "tuned.toml", "--gamma", "0.7"), QUIET).plan
    assert (made.settings.gamma, made.settings.n_epochs, made.settings.n_steps) == (0.7, 2, 3)  # type: ignore[attr-defined]
    assert made.settings.gae_lambda == 0.95  # type: ignore[attr-defined]


WRONG = [
    (BASE + "clip_coef = 1", "x.toml, line 3: unknown key 'clip_coef'; did you mean clip_range"),
    (BASE + "environment = 1", "x.toml, line 3: unknown key 'environment'; did you mean env"),
    (BASE + "learning-rate = 1", "x.toml, line 3: unknown key 'learning-rate'; did you mean learning_rate"),
    (BASE + "cg_damping = 1", "x.toml, line 3: cg_damping is not a setting of ppo, but of cpo, npg, tnpg, trpo"),
    (BASE + "zzz = 1", "x.toml, line 3: unknown key 'zzz'; `jumar train ppo --print-config` shows"),
    (BASE + "[settings]\ngamma = 1", "x.toml, line 3: unknown table 'settings'; settings stand at the top of the file"),
    (BASE + "run_dir = 'x'", "x.toml, line 3: run_dir is for the command line alone: --run-dir"),
    (BASE + "\ngamma = nan", "x.toml, line 4: gamma=nan is out of range"),
    (BASE + "gamma = 1.5", "x.toml, line 3: gamma=1.5 is out of range: it must be at least 0 and at most 1"),
    (BASE + "net_arch = {64 = 1}", "x.toml, line 3: net_arch must be a number, a text, true, false, or a list"),
    (BASE + "net_arch = [1, [2]]", "x.toml, line 3: net_arch must be a number, a text, true, false, or a list"),
    (BASE + "gamma = 2020-01-01", "x.toml, line 3: gamma must be a number"),
    (BASE + "seed = true", "x.toml, line 3: seed: 'true' is not a whole number such as 0 or 42"),
    (BASE + "seed = -1", "x.toml, line 3: seed: -1 is out of range"),
    (BASE + "seed = [1]", "x.toml, line 3: seed must be a number or a text"),
    (BASE + "total_timesteps = inf", "x.toml, line 3: total_timesteps: 'inf' is not a whole number"),
    (BASE + "stop_at_return = nan", "x.toml, line 3: stop_at_return: 'nan' is not a finite number"),
    (BASE + "cost = 3", "x.toml, line 3: cost must be a text in quotes, not 3"),
    (BASE + "atari = 1", "x.toml, line 3: atari must be true or false, not 1"),
    (BASE + "log_info = [1]", "x.toml, line 3: log_info must be a text or a list of texts"),
    (BASE + "wrapper = 'X:9'", "x.toml, line 3: wrapper: 'X:9' is not NAME or NAME:key=value"),
    (BASE + "env_kwargs = {a = {b = 1}}", "x.toml, line 3: the setting a of the environment is a dict"),
    (BASE + "env_kwargs = {a = inf}", "x.toml, line 3: the setting a of the environment is inf; it must be finite"),
    (BASE + "env_kwargs = ['a']", "x.toml, line 3: 'a' is no setting"),
    ("env = 'CartPole-v1'", "x.toml names no algorithm; add algorithm"),
    ("algorithm = 'pop'", "x.toml, line 1: unknown algorithm 'pop'; did you mean ppo"),
    ("algorithm = ['ppo']", "x.toml, line 1: algorithm must be a text in quotes"),
    ("algorithm = 'ppo'\nenv = ''", "x.toml, line 2: env must be a text in quotes"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text.splitlines()[-1] for text, _ in WRONG])
def test_what_is_wrong_in_a_file_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        request(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--config", "--config needs a value"),
        ("--config=", "--config needs a value: the path of a configuration file"),
        ("--config x.toml --like r", "--config and --like both say"),
        ("--config x.toml --gamme 1", "unknown option '--gamme'; did you mean --gamma"),
        ("--config x.toml jax/CartPole-v1", r"unknown algorithm 'jax/CartPole-v1'.*ALGO comes before ENV"),
        ("--like nowhere", "there is no run at nowhere"),
        ("ppo --config y.toml", "there is no configuration file y.toml; did you mean x.toml"),
        ("", "ALGO is missing"),
        ("ppo", "ENV is missing"),
    ],
)
def test_a_wrong_word_is_told_before_what_is_in_a_file(words: str, message: str) -> None:
    Path("x.toml").write_text(BASE + "gamma = 7\n")
    with pytest.raises(UsageError, match=message):
        request(None, *words.split())


OWN = """
algorithm = "ppo"
env = "antigravity:Hill-v0"
wrapper = ["TimeLimit:max_episode_steps=9", "antigravity:Grey:size=8"]
encoder = "antigravity:Net"
init_from = "old"
prefill = "data"
preset = "other.toml"
"""


def test_code_and_files_that_a_file_names_are_used_only_if_the_command_line_names_them() -> None:
    with pytest.raises(UsageError) as raised:
        request(OWN)
    assert str(raised.value) == (
        "x.toml, line 3: env names code or a file, and what a file names is imported or opened only if the command line names "
        "it too; add: ppo antigravity:Hill-v0 --wrapper antigravity:Grey --encoder antigravity:Net --init-from old "
        "--prefill data --preset other.toml"
    )
    named = ["ppo", "antigravity:Hill-v0", "--encoder", "antigravity:Net", "--init-from", "old", "--prefill", "data"]
    named += ["--preset", "other.toml"]
    with pytest.raises(UsageError, match=r"x.toml, line 4: wrapper names code .* add: --wrapper antigravity:Grey$"):
        request(OWN, *named)
    whole = request(OWN, *named, "--wrapper", "antigravity:Grey")
    assert whole.wrappers == (
        ("TimeLimit", (("max_episode_steps", 9),)),
        ("antigravity:Grey", (("size", 8),)),
    )
    assert (whole.env, whole.encoder, whole.init_from) == ("antigravity:Hill-v0", "antigravity:Net", Path("old"))
    other = request(OWN, *named, "--wrapper", "antigravity:Grey:size=2")
    assert other.wrappers == (("antigravity:Grey", (("size", 2),)),)
    assert "antigravity" not in sys.modules


def test_another_run_is_taken_under_the_same_rules(tmp_path: Path) -> None:
    plan = settle(request(BASE + "seed = 4\ngamma = 0.5\nworkers = 0\ntotal_timesteps = 512\n"), QUIET).plan
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.write_config({"kind": "run", **plan.to_json()})
    again = settle(request(None, "--like", str(run)), QUIET).plan
    assert dataclasses.replace(again, preset=plan.preset) == plan
    typed = settle(request(None, "ppo", "jax/Acrobot-v1", "--like", str(run), "--gamma", "0.25"), QUIET).plan
    assert (typed.environment_name, typed.settings.gamma, typed.seed) == ("Acrobot-v1", 0.25, 4)
    environment = {**plan.to_json()["environment"], "module": "antigravity"}
    run.write_config({"kind": "run", **plan.to_json(), "environment": environment, "encoder": "antigravity:Net"})
    with pytest.raises(
        UsageError, match=r"config.json: env names .* add: ppo jax/antigravity:CartPole-v1 --encoder antig"
    ):
        request(None, "--like", str(run))
    assert "antigravity" not in sys.modules


def test_a_printed_configuration_is_one(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", "ppo", "jax/CartPole-v1", "--gamma", "0.5", "--total-timesteps", "5000"]
    assert main([*words, "--print-config"]) == 0
    text = capfd.readouterr().out
    values = tomllib.loads(text)
    settings = {field.name for field in dataclasses.fields(ALGORITHMS["ppo"].settings)}
    assert settings < set(values)
    assert (values["gamma"], values["total_timesteps"], values["workers"]) == (0.5, 5000, "auto")
    assert not {"eval_every", "checkpoint_every", "run_dir"} & set(values)
    assert max(len(line) for line in text.splitlines()[1:] if not line.startswith("# ---")) <= 100
    # With every example in force, it is still read.
    shown = [line for line in text.splitlines() if line.startswith("#") and not line.startswith("# ")]
    assert {line[1:].partition(" = ")[0] for line in shown} >= {*EXAMPLES} - {"env"}
    Path("x.toml").write_text(text)
    plan = settle(request(None, *words[1:]), QUIET).plan
    again = settle(request(None, "--config", "x.toml"), QUIET).plan
    assert dataclasses.replace(again, preset=plan.preset) == plan
    Path("x.toml").write_bytes(toml.in_ascii(text + '# \N{SNOWMAN}\nsnow = "\N{SNOWMAN}"\n').encode("ascii"))
    assert tomllib.loads(Path("x.toml").read_text())["snow"] == "\N{SNOWMAN}"
    assert main([*words, "--print-config", "--json"]) == 0
    assert '"toml": ' in capfd.readouterr().out
