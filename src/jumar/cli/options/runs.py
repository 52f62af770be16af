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


def _add_own_code(parser: Parser, more: str = "") -> None:
    group = parser.add_argument_group("code of your own, which has to be named again")
    group.add_argument(
        "--env", metavar="module:EnvId",
        help=f"the run's environment, if it is code of your own: no module is imported only because a file names it{more}",
    )  # fmt: skip
    group.add_argument(
        "--wrapper", action="append", type=wrapper, metavar="module:Name",
        help="a wrapper of the run, if it is code of your own; may be repeated",
    )  # fmt: skip
    group.add_argument("--encoder", metavar="module:Name", help="the run's encoder, if it is code of your own")


def add_resume(parser: Parser) -> None:
    """Add the options of ``jumar resume``."""
    _add_run(parser, "resume")
    parser.why_no_settings = (
        "a resumed run goes on with the settings that it has. To use others, start a new run from what it has learnt: "
        "jumar train ALGO ENV --init-from RUN."
    )
    parser.add_argument(
        "--total-timesteps", type=steps, metavar="STEPS",
        help="a new total of environment steps; schedules then end at the new total (default: the run's own total)",
    )  # fmt: skip
    add_runners(
        parser,
        "for a run that was begun with --runners: step its environments in N processes on this machine or on a Ray cluster; "
        "the result does not depend on N (default: 0, in this process)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final summary")
    add_save_dataset(parser)
    _add_own_code(parser)


def add_evaluate(parser: Parser) -> None:
    """Add the options of ``jumar evaluate``."""
    _add_run(parser, "evaluate")
    parser.add_argument("--episodes", type=count(1), default=10, metavar="N", help="episodes to run (default: 10)")
    _add_policy(parser)
    _add_environment(parser)


def add_export(parser: Parser) -> None:
    """Add the options of ``jumar export``."""
    run = parser.add_argument("run", metavar="RUN", help="a run directory, or a folder that has only a policy")
    run.complete = "directory"  # type: ignore[attr-defined]
    parser.examples = {"RUN": "jumar export runs/my_run --format onnx"}
    known = ("onnx",)
    parser.add_argument(
        "--format", metavar="onnx", type=one_of("format", *known), choices=known, default="onnx",
        help="format of the file (default: onnx, the only one)",
    )  # fmt: skip
    _add_best(parser)
    out = parser.add_argument(
        "--out", metavar="FILE",
        help="new file that ends in .onnx (default: policy.onnx in the folder of the policy)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]
    parser.add_argument(
        "--action-mask", action="store_true",
        help="make the mask of allowed actions an input (default: only if it is part of the observation)",
    )  # fmt: skip


def add_record(parser: Parser) -> None:
    """Add the options of ``jumar record``."""
    _add_run(parser, "record")
    parser.add_argument(
        "--episodes", type=count(1), default=1, metavar="N", help="episodes to record of each policy (default: 1)"
    )
    _add_policy(parser)
    parser.add_argument(
        "--every-checkpoint", action="store_true",
        help="show how the run learnt: the policies of all checkpoints that are kept, and the best and the final one, in the "
        "order of their steps",
    )  # fmt: skip
    out = parser.add_argument(
        "--out", metavar="FILE",
        help="new file that ends in .mp4 or .gif (default: a new .mp4 file in RUN/videos)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]
    _add_pictures(parser)
    parser.add_argument(
        "--caption", action=argparse.BooleanOptionalAction, default=True,
        help="write policy, episode, step and return below the picture (default: true)",
    )  # fmt: skip
    _add_environment(parser)


def add_watch(parser: Parser) -> None:
    """Add the options of ``jumar watch``."""
    _add_run(parser, "watch")
    parser.add_argument(
        "--episodes", type=count(1), metavar="N",
        help="end after N episodes (default: end when the window is closed, by its button, q or Escape)",
    )  # fmt: skip
    _add_policy(parser)
    _add_pictures(parser)
    _add_environment(parser)


def _add_best(parser: Parser) -> None:
    parser.add_argument(
        "--best", action="store_true", help="take the policy of the best evaluation (default: the final policy)"
    )


def _add_policy(parser: Parser) -> None:
    _add_best(parser)
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="episode i is seeded with S + i (default: 0)")
    parser.add_argument("--stochastic", action="store_true", help="sample actions (default: deterministic actions)")


def _add_pictures(parser: Parser) -> None:
    parser.add_argument(
        "--fps", type=frame_rate, metavar="F",
        help="frames per second, one frame per step (default: what the environment states, else 30)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=picture_size, metavar="WIDTHxHEIGHT",
        help="size of the picture in pixels, without the caption (default: the environment's own; small ones are enlarged)",
    )  # fmt: skip


def _add_environment(parser: Parser) -> None:
    _add_own_code(parser, "; or an environment for a run that was trained on stored transitions without one")
    group = parser.add_argument_group("how --env is made, for a run that was trained without an environment")
    add_env_kwargs(group)
    add_frames(group)
