"""What the command says and returns when something is wrong, and what reaches standard output."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from jumar import cli
from jumar.cli.output import json_line, run_words
from jumar.console.signals import Stopped
from jumar.errors import LONGEST, DamagedFile, EnvironmentFault, UsageError
from jumar.settings import Settings, setting
from jumar.training.resolve import Making


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProximalSettings(Settings):
    """The settings of PPO."""

    clip_range: float = setting(0.2, "clip the ratio", at_least=0)
    gamma: float = setting(0.99, "discount", at_least=0, at_most=1)
    n_epochs: int = setting(10, "passes", at_least=1)
    normalize_advantage: bool = setting(True, "standardise advantages")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrustRegionSettings(Settings):
    """The settings of TRPO."""

    cg_damping: float = setting(0.1, "damping", at_least=0)


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    title: str
    settings: type[Settings]


ALGORITHMS: dict[str, Entry] = {
    "ppo": Entry("ppo", "Proximal policy optimization", ProximalSettings),
    "trpo": Entry("trpo", "Trust-region policy optimization", TrustRegionSettings),
}

SUMMARY = {
    "run_dir": "runs/my run",
    "algorithm": "ppo",
    "env": "CartPole-v1",
    "seed": 1,
    "total_timesteps": 100_000,
    "wall_time_s": 12.3,
    "steps_per_second": 21_000.0,
    "ep_rew_mean": 480.5,
    "last_eval_mean": 500.0,
}


@pytest.fixture(autouse=True)
def _two_algorithms(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "_algorithms", lambda: ALGORITHMS)
    monkeypatch.delenv("JUMAR_TRACEBACK", raising=False)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a function in the place of training, resuming or evaluating."""

    def install(**functions: Callable[..., Any]) -> None:
        monkeypatch.setitem(sys.modules, "jumar.training.commands", fake := ModuleType("jumar.training.commands"))
        for name, function in functions.items():
            setattr(fake, name, function)

    return install


def raising(error: BaseException) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> None:
        raise error

    return raise_it


MISTAKES = [
    ("", "no command is given"),
    ("trian ppo CartPole-v1", "unknown command 'trian'; did you mean train?"),
    ("frobnicate", "unknown command 'frobnicate'; `jumar --help` lists the commands."),
    ("--colour", "unknown option '--colour'"),
    ("train", "ALGO is missing; for example: jumar train ppo CartPole-v1"),
    ("train ppo", "ENV is missing; for example: jumar train ppo CartPole-v1"),
    ("train stock:Stock-v0 ppo", "the algorithm comes first: jumar train ppo stock:Stock-v0"),
    ("train pop CartPole-v1", "unknown algorithm 'pop'; did you mean ppo"),
    ("train PPO CartPole-v1", "did you mean ppo"),
    ("train ppo CartPole-v1 Acrobot-v1", "unexpected 'Acrobot-v1'"),
    ("train ppo CartPole-v1 --total-timesteps -5", "-5 is out of range: it must be at least 1"),
    ("train ppo CartPole-v1 --total-timesteps abc", "'abc' is not a whole number such as 500000, 1e6 or 100k"),
    ("train ppo CartPole-v1 --total-timesteps 0", "0 is out of range"),
    ("train ppo CartPole-v1 --total-timesteps", "--total-timesteps needs a value"),
    ("train ppo CartPole-v1 --seed x", "--seed: 'x' is not a whole number"),
    ("train ppo CartPole-v1 --seed -1", "--seed: -1 is out of range: it must be at least 0"),
    ("train ppo CartPole-v1 --gamma 1.5", "gamma=1.5 is out of range: it must be at least 0 and at most 1"),
    ("train ppo CartPole-v1 --gamma many", "gamma='many' is not a number"),
    ("train ppo CartPole-v1 --clip-coef 0.2", "unknown option '--clip-coef'; did you mean --clip-range"),
    ("train --update-epochs 4 ppo CartPole-v1", "unknown option '--update-epochs'; did you mean --n-epochs"),
    ("train ppo CartPole-v1 --clip_range 0.2", "unknown option '--clip_range'; did you mean --clip-range?"),
    ("train ppo CartPole-v1 -seed 3", "unknown option '-seed'; did you mean --seed?"),
    ("train ppo CartPole-v1 --total 5", "unknown option '--total'; did you mean --total-timesteps"),
    ("train ppo CartPole-v1 --clip 0.1", "unknown option '--clip'; did you mean --clip-range"),
    ("train ppo CartPole-v1 --cg-damping 1", "--cg-damping is not a setting of this algorithm, but of trpo"),
    ("train ppo CartPole-v1 --normalize-advantage=maybe", "--normalize-advantage=maybe is neither true nor false"),
    ("train ppo CartPole-v1 --quiet=yes", "--quiet is a flag and takes no value"),
    (
        "train ppo CartPole-v1 --env-kwargs gravity",
        "--env-kwargs needs one or more values such as key=value, not 'gravity'",
    ),
    ("train ppo CartPole-v1 --wrapper TimeLimit:9", "--wrapper: 'TimeLimit:9' is not NAME or NAME:key=value"),
    ("evaluate", "RUN is missing"),
    ("evaluate r --episodes 0", "--episodes: 0 is out of range"),
    ("resume r --gamma 0.9", "unknown option '--gamma'"),
    ("export r --format torch", "unknown format 'torch'; known: onnx."),
    ("list env", "unknown list 'env'; did you mean envs?"),
    ("completion fish", "unknown shell 'fish'; known: bash, zsh, tcsh."),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_a_mistake_gets_one_or_two_lines_and_exit_code_2(line: str, message: str, capfd: pytest.CaptureFixture[str]):
    assert cli.main(line.split()) == 2
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors.startswith("jumar: error: ")
    assert message in errors
    assert errors.count("\n") <= 2
    assert "Traceback" not in errors


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_a_mistake_is_one_json_object_where_json_is_wanted(line: str, message: str, capfd: pytest.CaptureFixture[str]):
    assert cli.main(["--json", *line.split()]) == 2
    output, errors = capfd.readouterr()
    assert list(json.loads(output)) == ["error"]
    assert message in json.loads(output)["error"]
    assert message in errors


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("runs/x is not empty."), 2, "error: runs/x is not empty."),
        (EnvironmentFault("environment 3 returned nan."), 1, "error: environment 3 returned nan."),
        (DamagedFile("policy.safetensors was changed."), 1, "error: policy.safetensors was changed."),
        (Stopped(signal.SIGINT, "saved in runs/x."), 130, "jumar: saved in runs/x."),
        (Stopped(signal.SIGTERM), 143, "jumar: stopped by SIGTERM."),
        (KeyboardInterrupt(), 130, "jumar: interrupted"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: out of memory allocating 9 bytes"),
            1,
            "smaller n_envs, n_steps, batch_size or buffer_size",
        ),
        (MemoryError(), 1, "smaller n_envs, n_steps, batch_size or buffer_size"),
        (OSError(9, "Bad file descriptor"), 1, "closed by something else in this process, such as the environment"),
        (EnvironmentFault("raised \x1b[2J."), 1, r"raised \x1b[2J."),
        (
            OSError(28, "No space left on device", "runs/x"),
            1,
            "error: No space left on device: runs/x; free some space there, or",
        ),
        (
            OSError(24, "Too many open files", "runs/x"),
            1,
            "error: Too many open files: runs/x; allow more, such as by `ulimit",
        ),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero\nthis is a bug in Jumar"),
        (BrokenPipeError(32, "Broken pipe"), 1, "Broken pipe"),
    ],
)
def test_a_failure_has_its_exit_code_and_sentence(
    error: BaseException, code: int, message: str, training: Callable[..., None], capfd: pytest.CaptureFixture[str]
):
    training(train=raising(error))
    assert cli.main(["train", "ppo", "CartPole-v1", "--json"]) == code
    output, errors = capfd.readouterr()
    assert message in errors
    assert "Traceback" not in errors
    assert json.loads(output)["error"] in errors
    assert "\x1b" not in errors


def test_a_message_that_quotes_much_loses_its_middle() -> None:
    words = str(UsageError(f"entry {'x' * 10_000} is unknown; take another."))
    assert len(words) == LONGEST
    assert words.startswith("entry xxx")
    assert " ... xxx" in words
    assert words.endswith("is unknown; take another.")
    assert str(UsageError("x" * LONGEST)) == "x" * LONGEST


def test_a_traceback_is_there_for_who_asks(
    training: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("JUMAR_TRACEBACK", "1")
    training(train=raising(ZeroDivisionError("division by zero")))
    assert cli.main(["train", "ppo", "CartPole-v1"]) == 1
    assert "Traceback" in capfd.readouterr().err


NOISY_RUN = """
import ctypes, os, subprocess, sys
from types import ModuleType
from jumar import cli
from jumar.settings import Settings

def evaluate(run, **options):
    print("from the environment")
    os.write(1, b"from a library\\n")
    ctypes.CDLL(None).printf(b"from a library that buffers\\n")
    subprocess.run(["echo", "from a child"])
    return {"mean_return": float("nan")}

sys.modules["jumar.training.commands"] = run = ModuleType("run")
run.evaluate = evaluate
from jumar.cli import evaluate as command
command.words = lambda result: ""
code = cli.main(["evaluate", "r", "--json"])
os.write(1, b"given back\\n")
sys.exit(code)
"""


def test_with_json_nothing_else_reaches_standard_output():
    done = subprocess.run([sys.executable, "-c", NOISY_RUN], capture_output=True, text=True)
    assert done.stdout == '{"mean_return": null}\ngiven back\n', done.stderr
    for source in ("from the environment", "from a library\n", "from a library that buffers", "from a child"):
        assert source in done.stderr


def test_without_json_the_last_words_say_what_to_type_next(
    training: Callable[..., None], capfd: pytest.CaptureFixture[str]
):
    training(train=lambda *_: SUMMARY)
    assert cli.main(["train", "ppo", "CartPole-v1"]) == 0
    output, _ = capfd.readouterr()
    assert "reached a mean return of 500" in output
    assert "saved in runs/my run" in output
    assert "  jumar evaluate 'runs/my run'\n" in output
    assert "  jumar report 'runs/my run'\n" in output
    assert "  jumar resume 'runs/my run' --total-timesteps 200000\n" in output


@pytest.mark.parametrize(("rule", "total"), [("stop_at_return", 500_000), (None, 200_000)])
def test_what_a_rule_has_stopped_is_proposed_to_go_on_to_its_total(
    rule: str | None, total: int, training: Callable[..., None], capfd: pytest.CaptureFixture[str]
):
    training(train=lambda *_: {**SUMMARY, "stopped_by": rule, "planned_timesteps": 500_000})
    assert cli.main(["train", "ppo", "CartPole-v1"]) == 0
    assert f" --total-timesteps {total}\n" in capfd.readouterr()[0]


def test_last_words_repeat_the_environment_of_a_module():
    words = run_words({**SUMMARY, "run_dir": "runs/x", "env": "Hill-v0", "repeat_env": "mine:Hill-v0"})
    assert "jumar evaluate runs/x --env mine:Hill-v0" in words
    assert "jumar resume runs/x --env mine:Hill-v0" in words
    words = run_words({**SUMMARY, "run_dir": "runs/x", "repeat_wrappers": ["mine:Grey", "mine:Small"]})
    assert "jumar evaluate runs/x --wrapper mine:Grey --wrapper mine:Small\n" in words


def test_last_words_without_an_evaluation_or_an_episode():
    assert "480.5 in training" in run_words({**SUMMARY, "last_eval_mean": None})
    words = run_words({**SUMMARY, "last_eval_mean": None, "ep_rew_mean": None})
    assert "ended no episode" in words
    assert "--wrapper TimeLimit:max_episode_steps=" in words


def test_last_words_do_not_call_a_return_reached_whose_episodes_were_cut():
    words = run_words({**SUMMARY, "last_eval_cut_episodes": 10})
    assert "reached" not in words
    assert (
        "mean return of 500.0 in its last evaluation, of which 10 episodes had not ended and were cut, after" in words
    )


def test_last_words_of_several_seeds_have_a_line_each():
    runs = [{"run_dir": f"five/seed_{seed}", "seed": seed} for seed in (0, 1)]
    text = run_words({**SUMMARY, "run_dir": "five", "runs": runs})
    assert "seed 0: reached" in text
    assert "seed 1: reached" in text
    assert "jumar evaluate five/seed_0\n" in text
    assert "jumar resume five --total" in text


def test_resume_and_evaluate_pass_on_what_was_typed(training: Callable[..., None], capfd: pytest.CaptureFixture[str]):
    seen: dict[str, Any] = {}
    result = {"mean_return": 1.0, "std_return": 0.0, "min_return": 1.0, "max_return": 1.0, "mean_length": 9.0}

    def resume(run: Any, reporter: Any, **options: Any) -> dict[str, Any]:
        seen.update(options, run=str(run))
        return SUMMARY

    def evaluate(run: Any, **options: Any) -> dict[str, Any]:
        seen.update(options, run=str(run))
        return {**result, "episodes": 3, "returns": [1.0] * 3}

    training(resume=resume, evaluate=evaluate)
    again = ["--env", "mine:Hill-v0", "--wrapper", "mine:Grey", "--wrapper", "mine:Small:size=8,keys=[1,2]"]
    assert cli.main(["resume", "r1", "--total-timesteps", "2M", *again, "--runners", "3", "--address", "a:1"]) == 0
    wrappers = [("mine:Grey", {}), ("mine:Small", {"size": 8, "keys": [1, 2]})]
    typed = {"run": "r1", "total_timesteps": 2_000_000, "env": "mine:Hill-v0", "wrappers": wrappers}
    assert seen == {**typed, "save_dataset": None, "encoder": None, "runners": 3, "address": "a:1"}
    seen.clear()
    assert cli.main(["evaluate", "r1", "--episodes", "3", "--seed", "5", "--stochastic", "--best"]) == 0
    assert callable(seen.pop("warn"))
    assert seen == {
        "run": "r1",
        "episodes": 3,
        "seed": 5,
        "stochastic": True,
        "best": True,
        "env": None,
        "wrappers": [],
        "encoder": None,
        "making": Making(),
    }
    assert "mean return 1.00 +- 0 over 3 episodes" in capfd.readouterr().out


def test_lists_begin_with_the_name(capfd: pytest.CaptureFixture[str]):
    assert cli.main(["list", "algorithms"]) == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["ppo", "trpo"]
    assert cli.main(["list", "algorithms", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["algorithms"][0]["name"] == "ppo"


def test_help_and_version_exit_with_0(capfd: pytest.CaptureFixture[str]):
    for line in ("--help", "-h", "--version", "train --help", "train ppo --help", "evaluate r --help"):
        assert cli.main(line.split()) == 0
        assert capfd.readouterr().out
    assert cli.main(["train", "ppo", "--help"]) == 0
    assert "--clip-range" in capfd.readouterr().out


def test_json_has_no_nan():
    assert json.loads(json_line({"a": float("nan"), "b": [float("inf"), 1.5], "c": None})) == {
        "a": None,
        "b": [None, 1.5],
        "c": None,
    }


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-c", "from jumar.cli import main; raise SystemExit(main(['completion', 'bash']))"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_a_full_disk_under_the_output_is_an_error():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "jumar", "completion", "bash"], stdout=full, stderr=-1, text=True)
    assert (done.returncode, done.stderr) == (1, "jumar: error: No space left on device.\n")


def test_python_m_jumar_is_the_command():
    done = subprocess.run([sys.executable, "-m", "jumar", "trian"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "jumar: error: unknown command 'trian'; did you mean train?\n")


def test_an_empty_run_directory_is_refused_in_words(capfd: pytest.CaptureFixture[str]):
    assert cli.main(["train", "ppo", "CartPole-v1", "--run-dir", ""]) == 2
    assert "--run-dir is empty" in capfd.readouterr().err


def test_an_interrupted_command_leaves_without_waiting_for_programs_that_jax_computes(monkeypatch: pytest.MonkeyPatch):
    """Python would put JAX's modules away under them, which crashes; a caller of ``main`` gets the code as ever."""
    import jax  # noqa: F401 (its being imported is what counts)

    def interrupted(words: list[str]) -> None:
        raise KeyboardInterrupt

    left: list[int] = []
    monkeypatch.setattr(cli, "_dispatch", interrupted)
    monkeypatch.setattr("os._exit", left.append)
    monkeypatch.setattr("sys.argv", ["jumar", "figure", "12.1"])
    assert cli.main(["figure", "12.1"]) == 130
    assert left == []
    cli.main()
    assert left == [130]
