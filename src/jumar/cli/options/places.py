"""Options that say where the runs of a comparison or a sweep are trained."""

from __future__ import annotations

from typing import Any

from jumar.cli.values import count, one_of

PLACES = ("local", "ray", "slurm")


def add_where(group: Any) -> None:
    """Add the options that say where runs are trained."""
    group.add_argument(
        "--on", type=one_of("place", *PLACES), choices=PLACES, default="local", metavar="|".join(PLACES),
        help="local: processes on this machine; ray: a Ray cluster; slurm: SLURM job arrays (default: local)",
    )  # fmt: skip
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="with --on ray: address of the cluster's head node (default: start Ray on this machine, for this command only)",
    )  # fmt: skip
    group.add_argument(
        "--slurm-options", metavar="TEXT",
        help='with --on slurm: options for sbatch, as one text: --slurm-options="--time=4:00:00 --partition=short"',
    )  # fmt: skip
    group.add_argument(
        "--processors", type=count(1), metavar="N",
        help="processors for each run; where several seeds share a program, the last bits of the results may depend on it "
        "(default: the machine's processors divided among the runs; 1 with ray and slurm)",
    )  # fmt: skip
