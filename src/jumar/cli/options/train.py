"""The options of ``jumar train``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from jumar.cli.options.environments import add_env, add_environment_options
from jumar.cli.options.settings import add_settings
from jumar.cli.parser import Parser, as_option
from jumar.cli.values import count, mean_return, seed, steps, steps_or_none
from jumar.settings import Settings

DEFAULT_TOTAL_TIMESTEPS = 1_000_000


class Algorithm(Protocol):
    """What the command line needs to know of an algorithm."""

    @property
    def name(self) -> str:
        """The name that is typed."""
        ...

    @property
    def title(self) -> str:
        """What it is, in one line."""
        ...

    @property
    def settings(self) -> type[Settings]:
        """The class of its hyperparameters."""
        ...


Algorithms = Mapping[str, Algorithm]

EXAMPLES: Mapping[str, str] = {
    "bc": "jumar train bc --dataset data.safetensors",
    "cpo": "jumar train cpo HalfCheetah-v5 --cost velocity:2 --cost-limit 25",
    **{name: f"jumar train {name} Pendulum-v1" for name in ("ddpg", "dpg", "td3")},
}
"""A command for each algorithm that cannot be trained in CartPole-v1 as it is."""


def add_train(parser: Parser, algorithms: Algorithms, algorithm: str | None, all_settings: bool) -> None:
    """Add the options of ``jumar train``, with the settings of one algorithm or of all."""
    described = ("--config", "--like")
    example = EXAMPLES.get(algorithm or "", f"jumar train {algorithm or 'ppo'} CartPole-v1")
    parser.spared = {"ALGO": described, "ENV": (*described, "--dataset")}
    parser.examples = {"ALGO": "jumar train ppo CartPole-v1", "ENV": example}
    shown = [algorithms[algorithm]] if algorithm else list(algorithms.values())
    listing = "; ".join(f"{entry.name} ({entry.title})" for entry in shown) or "`jumar list algorithms`"
    parser.add_argument(
        "algorithm",
        metavar="ALGO",
        nargs="?",
        choices=tuple(algorithms) or None,
        help=f"the algorithm: {listing}".replace("%", "%%"),
    )
    add_env(
        parser,
        "a Gymnasium id (HalfCheetah-v5, module:EnvId), or an id with its backend in front: gymnasium/, envpool/, "
        "jax/, gymnax/ or brax/; `jumar list envs` lists them; with --dataset it may be left out",
        nargs="?",
    )

    general = parser.add_argument_group("general")
    default = f"default: {DEFAULT_TOTAL_TIMESTEPS:,}"
    general.add_argument(
        "--total-timesteps", type=steps, default=DEFAULT_TOTAL_TIMESTEPS, metavar="STEPS",
        help=f"environment steps to train for, over all environments; rounded up to whole iterations ({default})",
    )  # fmt: skip
    general.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    general.add_argument(
        "--n-seeds", type=count(1), metavar="K",
        help="train K seeds in one program, from --seed on; compiled environments only (default: one seed)",
    )  # fmt: skip
    general.add_argument(
        "--preset", metavar="NAME|FILE|none",
        help="tuned settings to start from: a name from `jumar list presets`, a file of your own (FILE.toml), or none "
        "(default: the preset for this algorithm and environment, if there is one)",
    )  # fmt: skip
    general.add_argument(
        "--encoder", metavar="module:Name",
        help="a network of your own that encodes observations, for policy and critic (default: Jumar's)",
    )  # fmt: skip
    start = general.add_argument(
        "--init-from", metavar="RUN",
        help="start from the policy, normaliser and critic of another run, in an environment with equal spaces; method and "
        "settings may differ, but those of the policy are taken from RUN (default: a randomly initialised policy)",
    )  # fmt: skip
    start.complete = "directory"  # type: ignore[attr-defined]
    defaults = {field.name: field.default for field in dataclasses.fields(shown[0].settings)} if algorithm else {}
    add_environment_options(parser, str(defaults.get("n_envs", "the algorithm's")))
    _add_saving_options(parser)
    _add_events(parser)
    _add_config_options(parser)
    _add_data_options(parser)
    for entry in shown:
        add_settings(parser, entry.settings, hidden=algorithm is None and not all_settings, choices=all_settings)
    for entry in algorithms.values():
        for field in dataclasses.fields(entry.settings):
            parser.owners.setdefault(as_option(field.name), []).append(entry.name)
    if algorithm is None:
        parser.epilog = f"`jumar train ALGO --help` lists the settings of an algorithm.\n{parser.epilog}"
    else:
        parser.epilog = f"The defaults of settings are those without a preset (--preset none).\nExample: {example}"


def _add_config_options(parser: Parser) -> None:
    group = parser.add_argument_group("configuration files")
    config = group.add_argument(
        "--config", metavar="FILE.toml",
        help="take what is not on the command line from a configuration file (ALGO and ENV too)",
    )  # fmt: skip
    config.complete = "file"  # type: ignore[attr-defined]
    like = group.add_argument(
        "--like",
        metavar="RUN",
        help="take what is not on the command line from another run (ALGO, ENV and the seed too)",
    )
    like.complete = "directory"  # type: ignore[attr-defined]
    group.add_argument(
        "--print-config", action="store_true",
        help="do not train; print a configuration file with every option, what it does and its default",
    )  # fmt: skip


def _add_data_options(parser: Parser) -> None:
    group = parser.add_argument_group("stored transitions")
    dataset = group.add_argument(
        "--dataset", metavar="FILE",
        help="learn from a data set alone (a file from --save-dataset, or a Minari folder): a step is then an update, and "
        "the environment is only for evaluation (off-policy methods, bc)",
    )  # fmt: skip
    prefill = group.add_argument(
        "--prefill", metavar="FILE", help="start with a data set in the replay buffer (off-policy methods)"
    )
    dataset.complete = prefill.complete = "file"  # type: ignore[attr-defined]
    add_save_dataset(group)


def add_save_dataset(group: Any) -> None:
    """Add the option that keeps the steps of a run as a data set."""
    save = group.add_argument(
        "--save-dataset", metavar="FILE",
        help="write all steps that the run collects to a data set, when it ends or is stopped (off-policy methods)",
    )  # fmt: skip
    save.complete = "file"


def _add_saving_options(parser: Parser) -> None:
    group = parser.add_argument_group("evaluation and files")
    run_dir = group.add_argument(
        "--run-dir", metavar="DIR",
        help="run directory to write, new or empty (default: runs/ALGO_ENV_SEED_DATE)",
    )  # fmt: skip
    run_dir.complete = "directory"  # type: ignore[attr-defined]
    group.add_argument(
        "--eval-every", type=steps_or_none, metavar="STEPS",
        help="environment steps between evaluations, 0 for none (default: a tenth of the run)",
    )  # fmt: skip
    group.add_argument(
        "--eval-episodes", type=count(1), default=10, metavar="N", help="episodes of each evaluation (default: 10)"
    )
    group.add_argument(
        "--checkpoint-every", type=steps_or_none, metavar="STEPS",
        help="environment steps between checkpoints, 0 for one at the end only (default: chosen from the length of the run); "
        "a checkpoint resets environments that are not compiled",
    )  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final summary")


def _add_events(parser: Parser) -> None:
    group = parser.add_argument_group("early stopping and logging")
    group.add_argument(
        "--stop-at-return", type=mean_return, metavar="R",
        help="stop when the mean return of an evaluation is at least R; with --n-seeds the mean over all seeds "
        "(default: train to the total)",
    )  # fmt: skip
    group.add_argument(
        "--stop-without-gain", type=count(1, "5"), metavar="N",
        help="stop after N evaluations in a row without a new best mean return; with --n-seeds the mean over all seeds "
        "(default: train to the total)",
    )  # fmt: skip
    group.add_argument(
        "--log-info", action="append", metavar="KEY",
        help="log the mean of info[KEY] over the steps of an iteration that have it, as info/KEY; may be repeated",
    )  # fmt: skip
