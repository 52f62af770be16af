"""``jumar export``: a trained policy as a file that other programs run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jumar.cli.output import Outcome
from jumar.errors import UsageError
from jumar.export.target import check_target

if TYPE_CHECKING:
    from jumar.export.onnx_file import Exported

NAME = "policy.onnx"
"""What the file is called, beside the policy that it is made of, unless it is told otherwise."""


def run(arguments: argparse.Namespace) -> Outcome:
    """Write the file."""
    folder = _policy_folder(Path(arguments.run), arguments.best)
    # All that needs no JAX first, which takes seconds to import.
    file = check_target(folder / NAME if arguments.out is None else arguments.out, arguments.format)

    from jumar.agents.actor import loaded
    from jumar.export.policies import own_code
    from jumar.training.restore import read_own_names, read_saved_policy
    from jumar.xla.compiler import prepare_compiler

    prepare_compiler(lambda words: None)
    names = read_own_names(folder)
    if names.encoder is not None or names.features is not None:
        raise own_code("an encoder" if names.encoder else "features", names.encoder or names.features)
    exported = loaded(read_saved_policy(folder), folder).export(file, arguments.format, arguments.action_mask)
    data = {"file": str(exported.file), "format": exported.format, "max_error": exported.max_error}
    return Outcome(data, words(exported), kept=True)


def _policy_folder(path: Path, best: bool) -> Path:
    """Return the folder of the policy in a run directory, or the path itself where it holds a policy and nothing else of a run.

    Raises:
        UsageError: there is no run, or no such policy.
        DamagedFile: the run is damaged.
    """
    from jumar.runs.policy_files import has_policy
    from jumar.runs.run_directory import CONFIG, RunDirectory

    if has_policy(path) and not os.path.lexists(path / CONFIG) and not best:
        return path
    run = RunDirectory.open(path)
    if seeds := run.seeds():
        raise UsageError(f"{run} holds several seeds; export one of them, such as {run.seed(seeds[0])}.")
    folder = run.best if best else run.policy
    if has_policy(folder):
        return folder
    if best:
        raise UsageError(f"{run} has no best policy: it was never evaluated.")
    other = ", or export its best one so far with --best" if has_policy(run.best) else ""
    raise UsageError(f"{run} has no final policy: go on with jumar resume {run}{other}.")


def words(exported: Exported) -> str:
    """Say what was written, how well it agrees, and what goes in and comes out."""
    from jumar.export.check import OBSERVATIONS

    width = max(len(value.name) for value in (*exported.inputs, *exported.outputs))
    lines = [
        f"Written to {exported.file}; on {OBSERVATIONS} observations it differs from the policy by {exported.max_error:.1e}.",
        *(f"  input   {value.name:<{width}}  {value.words()}" for value in exported.inputs),
        *(f"  output  {value.name:<{width}}  {value.words()}" for value in exported.outputs),
    ]
    return "\n".join(lines)
