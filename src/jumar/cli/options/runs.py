"""The options of the commands that take a run: resume, evaluate, export, record and watch."""

from __future__ import annotations

import argparse

from jumar.cli.options.environments import add_env_kwargs, add_frames, add_runners
from jumar.cli.options.train import add_save_dataset
from jumar.cli.parser import Parser
from jumar.cli.values import count, frame_rate, one_of, picture_size, seed, steps, wrapper


def _add_run(parser: Parser, command: str) -> None:
    run = parser.add_argument("run", metavar="RUN", help="a run directory")
    run.complete = "directory"  # type: ignore[attr-defined]
    parser.examples = {"RUN": f"jumar {command} runs/my_run"}
    parser.add_argument(
        "--env",
        metavar="module:EnvId",
        help="the environment once more, where it is code of your own: no module is imported because a file names it",
    )
    parser.add_argument(
        "--wrapper", action="append", type=wrapper, metavar="module:Name",
        help="a wrapper once more, where it is code of your own; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--encoder", metavar="module:Name", help="the run's encoder of your own once more, if it has one"
    )


def add_resume(parser: Parser) -> None:
    """Add the options of ``jumar resume``."""
    _add_run(parser, "resume")
    parser.why_no_settings = (
        "a resumed run goes on with the settings that it has. With others, begin a new run with what it has learnt: "
        "jumar train ALGO ENV --init-from RUN."
    )
    parser.add_argument(
        "--total-timesteps", type=steps, metavar="STEPS",
        help="a new total of environment steps; schedules then count down to it (default: the same as before)",
    )  # fmt: skip
    add_runners(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final words")
    add_save_dataset(parser)


def add_evaluate(parser: Parser) -> None:
    """Add the options of ``jumar evaluate``."""
    _add_run(parser, "evaluate")
    parser.add_argument("--episodes", type=count(1), default=10, metavar="N", help="episodes to run (default: 10)")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="episode i is seeded with S + i (default: 0)")
    parser.add_argument("--stochastic", action="store_true", help="sample actions (default: the likeliest action)")
    parser.add_argument(
        "--best", action="store_true", help="take the best evaluation's policy (default: the final one)"
    )
    _add_elsewhere(parser)


def add_export(parser: Parser) -> None:
    """Add the options of ``jumar export``."""
    run = parser.add_argument("run", metavar="RUN", help="a run directory, or a folder with policy.json alone")
    run.complete = "directory"  # type: ignore[attr-defined]
    parser.examples = {"RUN": "jumar export runs/my_run --format onnx"}
    known = ("onnx",)
    parser.add_argument(
        "--format", metavar="onnx", type=one_of("format", *known), choices=known, default="onnx",
        help="the format of the file (default: onnx, the only one)",
    )  # fmt: skip
    parser.add_argument(
        "--best", action="store_true", help="take the best evaluation's policy (default: the final one)"
    )
    out = parser.add_argument(
        "--out", metavar="FILE",
        help="the file, which ends in .onnx and does not exist yet (default: policy.onnx beside the policy)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]
    parser.add_argument(
        "--action-mask", action="store_true",
        help="make the mask of allowed actions an input (default: only where it is a part of the observation)",
    )  # fmt: skip


def add_record(parser: Parser) -> None:
    """Add the options of ``jumar record``."""
    _add_run(parser, "record")
    parser.add_argument(
        "--episodes", type=count(1), default=1, metavar="N", help="episodes to film, of each policy (default: 1)"
    )
    _add_shown(parser)
    parser.add_argument(
        "--every-checkpoint", action="store_true",
        help="film of learning: the policy of each checkpoint that is kept, and the best one, in the order of their steps",
    )  # fmt: skip
    out = parser.add_argument(
        "--out", metavar="FILE",
        help="a new file that ends in .mp4 or .gif (default: a new .mp4 in the run's folder videos)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]
    _add_pictures(parser)
    parser.add_argument(
        "--caption", action=argparse.BooleanOptionalAction, default=True,
        help="write policy, episode, step and return below the picture (default: true)",
    )  # fmt: skip
    _add_elsewhere(parser)


def add_watch(parser: Parser) -> None:
    """Add the options of ``jumar watch``."""
    _add_run(parser, "watch")
    parser.add_argument(
        "--episodes", type=count(1), metavar="N",
        help="end after so many episodes (default: when the window is closed, by q or its button)",
    )  # fmt: skip
    _add_shown(parser)
    _add_pictures(parser)
    _add_elsewhere(parser)


def _add_shown(parser: Parser) -> None:
    parser.add_argument(
        "--best", action="store_true", help="take the best evaluation's policy (default: the final one)"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="S",
        help="episode i is seeded with S + i, as in `jumar evaluate` (default: 0)",
    )  # fmt: skip
    parser.add_argument("--stochastic", action="store_true", help="sample actions (default: the likeliest action)")


def _add_pictures(parser: Parser) -> None:
    parser.add_argument(
        "--fps", type=frame_rate, metavar="F",
        help="pictures per second, a picture being a step (default: what the environment states, else 30)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=picture_size, metavar="WIDTHxHEIGHT",
        help="of the picture in pixels, without the caption (default: the environment's own; small ones are enlarged)",
    )  # fmt: skip


def _add_elsewhere(parser: Parser) -> None:
    group = parser.add_argument_group("how --env is made, of a run that learnt from stored transitions without one")
    add_env_kwargs(group)
    add_frames(group)
