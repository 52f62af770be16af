"""Options that say where the runs of a comparison or a sweep are trained."""

from __future__ import annotations

from typing import Any

from jumar.cli.values import count, one_of

PLACES = ("local", "ray", "slurm")


def add_where(group: Any) -> None:
    """Add the options that say where runs are trained."""
    group.add_argument(
        "--on", type=one_of("place", *PLACES), choices=PLACES, default="local",
        help="local: in processes of this machine; ray: by a Ray cluster; slurm: by job arrays of SLURM (default: local)",
    )  # fmt: skip
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="the head of the Ray cluster (default: a local Ray, for the time of the command)",
    )  # fmt: skip
    group.add_argument(
        "--slurm-options", metavar="TEXT",
        help='options of sbatch, as one text: --slurm-options="--time=4:00:00 --partition=short"',
    )  # fmt: skip
    group.add_argument(
        "--processors", type=count(1), metavar="N",
        help="processors of each run; the last bits of several seeds in one program may depend on it (default: local, those of "
        "the machine divided among the runs; elsewhere 1)",
    )  # fmt: skip
