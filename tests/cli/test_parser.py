"""The grammar of the command line: what is typed, and what the command gets."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from jumar.cli import completion, train, values
from jumar.cli.grammar import build, find_algorithm
from jumar.cli.options.settings import given_settings, setting_help
from jumar.cli.options.train import EXAMPLES
from jumar.cli.parser import Parser
from jumar.errors import UsageError
from jumar.schedules import Constant, Schedule
from jumar.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonFields(Settings):
    """The settings of all climbers."""

    n_envs: int = setting(4, "ropes", at_least=1)
    gamma: float = setting(0.99, "discount", at_least=0, at_most=1)
    net_arch: tuple[int, ...] = setting((64, 64), "hidden layers", at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClimbSettings(CommonFields):
    """The settings of a climb."""

    learning_rate: Schedule = setting(Constant(3e-4), "size, 100 % of it", above=0)
    normalize_advantage: bool = setting(True, "standardise advantages")
    target_kl: float | None = setting(None, "stop beyond this divergence", above=0)
    n_steps: int = setting(2048, "length of a rollout", unit="steps", at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlideSettings(CommonFields):
    """The settings of a slide."""

    friction: float = setting(0.5, "friction", at_least=0)


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    title: str
    settings: type[Settings]


ALGORITHMS: dict[str, Entry] = {
    "climb": Entry("climb", "Going up", ClimbSettings),
    "slide": Entry("slide", "Going down", SlideSettings),
}


def read_train(*words: str) -> argparse.Namespace:
    algorithm = find_algorithm(words, ALGORITHMS)
    return build(ALGORITHMS, algorithm)[1]["train"].read(words)


def help_text(algorithm: str | None) -> str:
    return " ".join(build(ALGORITHMS, algorithm)[1]["train"].format_help().split())


@pytest.mark.parametrize(
    "words",
    [
        "climb Hill-v0 --seed 3 --gamma 0.9 --no-normalize-advantage",
        "--seed 3 --gamma 0.9 --no-normalize-advantage climb Hill-v0",
        "--seed=3 climb --normalize-advantage false --gamma=0.9 Hill-v0",
        "--normalize-advantage=FALSE --gamma 0.9 climb Hill-v0 --seed 3",
    ],
)
def test_options_may_stand_anywhere(words: str):
    arguments = read_train(*words.split())
    assert (arguments.algorithm, arguments.env, arguments.seed) == ("climb", "Hill-v0", 3)
    assert given_settings(arguments) == {"gamma": "0.9", "normalize_advantage": False}


def test_a_flag_does_not_swallow_the_algorithm():
    arguments = read_train("--normalize-advantage", "climb", "Hill-v0")
    assert given_settings(arguments) == {"normalize_advantage": True}
    assert arguments.env == "Hill-v0"


def test_settings_that_were_not_typed_are_absent():
    assert given_settings(read_train("climb", "Hill-v0")) == {}


def test_values_may_begin_with_a_minus_sign():
    arguments = read_train("climb", "Hill-v0", "--learning-rate", "-3e-4")
    assert given_settings(arguments) == {"learning_rate": "-3e-4"}


def test_an_option_value_is_not_taken_for_the_algorithm():
    assert find_algorithm(["--run-dir", "slide", "--gamma", "1", "climb", "Hill-v0"], ALGORITHMS) == "climb"
    assert find_algorithm(["--unheard-of", "0.2", "climb"], ALGORITHMS) == "climb"
    assert find_algorithm(["--seed", "1"], ALGORITHMS) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e6", 10**6), ("1_000_000", 10**6), ("100k", 10**5), ("2M", 2 * 10**6), ("1.5k", 1500), ("7", 7)],
)
def test_steps_are_read_in_every_usual_form(text: str, number: int):
    assert values.steps(text) == number


@pytest.mark.parametrize("text", ["-5", "0", "abc", "1.5", "k", "", "nan", "inf", "1e400"])
def test_steps_refuse_what_is_no_positive_whole_number(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match=r"out of range|not a whole number"):
        values.steps(text)


def test_seeds_are_exact_up_to_the_last():
    assert values.seed("2147483646") == 2**31 - 2
    with pytest.raises(argparse.ArgumentTypeError, match="at most 2147483646"):
        values.seed("2147483647")


def test_wrappers_take_arguments_with_lists():
    assert values.wrapper("RescaleAction:low=[-1,1],high=2") == ("RescaleAction", ("low=[-1,1]", "high=2"))
    assert values.wrapper("FlattenObservation") == ("FlattenObservation", ())
    with pytest.raises(argparse.ArgumentTypeError, match="NAME:key=value"):
        values.wrapper("TimeLimit:100")


def test_a_request_holds_what_was_typed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "assignments", lambda texts: dict(text.split("=") for text in texts))
    words = (
        "--env-kwargs gravity=9.8 wind=-1 climb Hill-v0 --env-kwargs rope=long --wrapper TimeLimit:max=9 --wrapper Flat "
        "--frame-stack 4 --workers auto --n-envs 16 --total-timesteps 10k --eval-every 0 --checkpoint-every 1e3 "
        "--preset none --n-seeds 5 --run-dir here --net-arch 32,32"
    )
    request = train.request_from(read_train(*words.split()), ALGORITHMS)
    assert request.env_kwargs == {"gravity": "9.8", "wind": "-1", "rope": "long"}
    assert request.wrappers == (("TimeLimit", (("max", "9"),)), ("Flat", ()))
    assert (request.frame_stack, request.workers, request.n_envs, request.n_seeds) == (4, None, 16, 5)
    assert (request.total_timesteps, request.eval_every, request.checkpoint_every) == (10_000, 0, 1000)
    assert (request.preset, request.run_dir, request.settings) == ("none", Path("here"), {"net_arch": "32,32"})


@pytest.mark.parametrize("words", [["--net-arch", ""], ["--net-arch="], ["--net-arch", "none"]])
def test_no_hidden_layers_can_be_typed(words: list[str]):
    request = train.request_from(read_train("climb", "Hill-v0", *words), ALGORITHMS)
    assert ClimbSettings.make(request.settings).net_arch == ()


def test_a_request_checks_every_setting():
    with pytest.raises(UsageError, match=r"gamma=1\.5 is out of range: it must be at least 0 and at most 1"):
        train.request_from(read_train("climb", "Hill-v0", "--gamma", "1.5"), ALGORITHMS)


def test_help_of_an_algorithm_explains_every_setting_with_unit_and_default():
    text = help_text("climb")
    assert "--learning-rate X|SCHEDULE size, 100 % of it; a number or a schedule" in text
    assert "(linear:X, exponential:X:Y, inverse_sqrt:X:Y), above 0 (default: 0.0003)" in text
    assert "--n-steps N length of a rollout; a whole number, at least 1 (default: 2048 steps)" in text
    assert "--target-kl X stop beyond this divergence; a number, above 0, or none (default: none)" in text
    assert "--normalize-advantage, --no-normalize-advantage standardise advantages (default: true)" in text
    assert "environments stepped side by side (default: 4)" in text
    assert "settings of a climb:" in text
    assert "settings of all climbers:" in text
    assert "friction" not in text


def test_general_help_lists_algorithms_but_no_settings():
    text = help_text(None)
    assert "climb (Going up); slide (Going down)" in text
    assert "--total-timesteps" in text
    assert "--learning-rate" not in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_options_and_settings(shell: str):
    text = completion.script(shell, ALGORITHMS)
    for word in ("evaluate", "total-timesteps", "friction", "climb"):
        assert word in text


def test_bash_completion_is_a_script_that_bash_accepts(tmp_path: Path):
    script = tmp_path / "completion.bash"
    script.write_text(completion.script("bash", ALGORITHMS))
    # As bash does it: the words so far, the position of the cursor, then the function that is registered for jumar.
    ask = (
        f"source {script}; COMP_WORDS=(jumar train climb --learn); COMP_CWORD=3; "
        "_shtab_jumar; echo ${COMPREPLY[@]}; complete -p jumar"
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True)
    assert "--learning-rate" in done.stdout.split(), done.stderr


def example_in(parser: Parser) -> list[str]:
    """Return the words of the example in a help, without a remark or a redirection after it."""
    example = " ".join(parser.format_help().split()).rpartition("Example: ")[2]
    return example.partition(";")[0].partition(" > ")[0].split()


def test_the_example_in_every_help_is_a_command_that_parses():
    from jumar.algorithms.registry import ALGORITHMS as METHODS

    for name, parser in build(METHODS)[1].items():
        words = example_in(parser)
        assert words[:2] == ["jumar", name]
        assert parser.read(words[2:])


def test_algorithms_that_do_not_suit_cartpole_have_an_example_of_their_own():
    from jumar.algorithms.registry import ALGORITHMS as METHODS

    for name in METHODS:
        parser = build(METHODS, name)[1]["train"]
        words = example_in(parser)
        assert words[:3] == ["jumar", "train", name]
        assert parser.read(words[2:])
        assert ("CartPole-v1" in words) == (name not in EXAMPLES)
    assert set(EXAMPLES) < set(METHODS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceSettings(Settings):
    """Settings with choices."""

    route: str = setting("face", "way up; ridge: along the ridge; face: straight up", choices=("ridge", "face"))
    rope: str | None = setting(None, "kind of rope", choices=("half", "twin"))
    camps: tuple[int, ...] | None = setting(None, "heights of camps", at_least=1)
    pace: float | str = setting("auto", "pace: a number or auto", unit="m/s")
    rests: int = setting(1, "rests", unit="hours", at_least=0)


def test_help_names_choices_and_ranges_once():
    helps = {field.name: setting_help(ChoiceSettings, field) for field in dataclasses.fields(ChoiceSettings)}
    assert helps == {
        "route": "way up; ridge: along the ridge; face: straight up (default: face)",
        "rope": "kind of rope; one of half, twin or none (default: none)",
        "camps": "heights of camps; a list of whole numbers such as 64,64, each at least 1, or none (default: none)",
        "pace": "pace: a number or auto (default: auto)",
        "rests": "rests; a whole number, at least 0 (default: 1 hour)",
    }


@pytest.mark.parametrize("width", [60, 80])
def test_no_help_is_wider_than_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch):
    from jumar.algorithms.registry import ALGORITHMS as METHODS

    monkeypatch.setenv("COLUMNS", str(width))
    for method in (None, *METHODS):
        root, parsers = build(METHODS, method)
        texts = [root.format_help(), *(each.format_help() for each in parsers.values())]
        for line in "\n".join(texts if method is None else [parsers["train"].format_help()]).splitlines():
            assert len(line) <= width, line


def test_help_needs_no_jax():
    code = "import sys, jumar.cli\njumar.cli.main(['--help'])\nsys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_a_double_dash_ends_the_options():
    reader = Parser(prog="x")
    reader.add_argument("one", metavar="ONE")
    assert reader.read(["--", "--odd"]).one == "--odd"
