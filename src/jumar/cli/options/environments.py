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
        help="one of Gymnasium's wrappers by name, or one of your own as module:Name; may be repeated, the innermost first; "
        "a list is written as JSON: 'FilterObservation:filter_keys=[\"image\"]'",
    )  # fmt: skip
    add_frames(group)


def add_env_kwargs(group: Any) -> None:
    """Add the arguments of an environment."""
    group.add_argument(
        "--env-kwargs", action=Assignments, metavar="KEY=VALUE",
        help="arguments of the environment, one or more: --env-kwargs gravity=9.8 continuous=true",
    )  # fmt: skip


def add_frames(group: Any) -> None:
    """Add the options that change what an observation is made of."""
    group.add_argument("--frame-stack", type=count(1), metavar="K", help="show the policy the last K observations")
    group.add_argument(
        "--atari", action="store_true",
        help="prepare an Atari game of ALE's or EnvPool's in the usual way: 84 x 84 in grey, 4 frames a step, a stack of 4, "
        "sticky actions; in training clipped rewards and episodes that end with a life",
    )  # fmt: skip


def add_runners(group: Any) -> None:
    """Add the options that say who steps environments that each act alone."""
    group.add_argument(
        "--runners", type=count(0), metavar="N",
        help="let each copy of a Gymnasium environment act alone (a lane), and have N processes step them, here or on a Ray "
        "cluster; 0: this process; N changes no result (default: copies act together)",
    )  # fmt: skip
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="the head of the Ray cluster where the runners are (default: a Ray of its own on this machine)",
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
        help="worker processes that step the environments, 0 for none (default: auto, by measuring a step)",
    )  # fmt: skip
    add_runners(group)
    group.add_argument(
        "--cost", metavar="velocity:V",
        help="a step costs 1 where the body moves faster than V along x, and else 0 (default: the environment's own "
        "info['cost'])",
    )  # fmt: skip
