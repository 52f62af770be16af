"""Options that say which environment there is, and how it is made."""

from __future__ import annotations

from typing import Any

from jumar.cli.parser import Assignments, Parser
from jumar.cli.values import count, workers, wrapper


def add_env(parser: Parser, words: str, **options: Any) -> None:
    """Add the positional that names an environment."""
    environment = parser.add_argument("env", metavar="ENV", help=words, **options)
    environment.complete = {"bash": "_jumar_environments", "zsh": "_jumar_environments"}  # type: ignore[attr-defined]


def add_making_options(group: Any) -> None:
    """Add the options that say how an environment is made."""
    add_env_kwargs(group)
    group.add_argument(
        "--wrapper", action="append", type=wrapper, metavar="NAME[:KEY=VALUE,...]",
        help="a Gymnasium wrapper by name, or one of your own as module:Name; may be repeated, the innermost first; write a "
        "list as JSON: 'FilterObservation:filter_keys=[\"image\"]'",
    )  # fmt: skip
    add_frames(group)


def add_env_kwargs(group: Any) -> None:
    """Add the arguments of an environment."""
    group.add_argument(
        "--env-kwargs", action=Assignments, metavar="KEY=VALUE",
        help="keyword arguments for the environment, one or more: --env-kwargs gravity=9.8 continuous=true",
    )  # fmt: skip


def add_frames(group: Any) -> None:
    """Add the options that change what an observation is made of."""
    group.add_argument(
        "--frame-stack", type=count(1), metavar="K",
        help="stack the last K observations for the policy (default: the current one alone)",
    )  # fmt: skip
    group.add_argument(
        "--atari", action="store_true",
        help="the usual preprocessing of Atari games (ALE or EnvPool): 84 x 84 greyscale, 4 frames per step, 4 stacked frames, "
        "sticky actions; in training also clipped rewards and episodes that end when a life is lost",
    )  # fmt: skip


LANES = (
    "step each copy of a Gymnasium environment on its own (a lane), in N processes on this machine or on a Ray cluster; 0: in "
    "this process; the result does not depend on N (default: step all copies together, without lanes)"
)


def add_runners(group: Any, words: str = LANES) -> None:
    """Add the options that say who steps environments that each act alone."""
    group.add_argument("--runners", type=count(0), metavar="N", help=words)
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="with --runners: address of the Ray cluster's head node (default: start Ray on this machine)",
    )  # fmt: skip


def add_environment_options(parser: Parser, n_envs: str) -> None:
    """Add the options that say which environments a training steps, and in which processes."""
    group = parser.add_argument_group("environment")
    group.add_argument(
        "--n-envs", type=count(1), metavar="N",
        help=f"environments stepped side by side (default: {n_envs})",
    )  # fmt: skip
    add_making_options(group)
    group.add_argument(
        "--workers", type=workers, metavar="N|auto",
        help="worker processes that step the environments, 0 for none (default: auto, which times a step to decide)",
    )  # fmt: skip
    add_runners(group)
    group.add_argument(
        "--cost", metavar="velocity:V",
        help="cost of a step: 1 if the body moves along x faster than V (m/s), else 0 (default: the environment's own "
        "info['cost'])",
    )  # fmt: skip
