"""Reading back what a run directory keeps: its policy, its newest checkpoint, its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jumar.errors import DamagedFile, UsageError
from jumar.policies import Policy, PolicySettings, make_policy
from jumar.spaces import require_same_spaces, space_from_json
from jumar.training.checkpoints import Checkpoint, CheckpointStore
from jumar.training.files import arrays_to_tree
from jumar.training.plan import Plan
from jumar.training.policy_files import DESCRIPTION, has_policy, read_policy_files
from jumar.training.run_directory import RunDirectory
from jumar.training.sources import Source
from jumar.training.training import Training

MOST_NAMED = 4
"""How many files a message names."""


def read_policy(folder: Path) -> tuple[Policy, Any, Any, tuple[Any, Any]]:
    """Return a saved policy, its parameters, its observation moments, and its (observation, action) spaces.

    Raises:
        UsageError: there is none.
        DamagedFile: it is damaged or foreign.
    """
    arrays, description = read_policy_files(folder)
    try:
        spaces = space_from_json(description["observation_space"]), space_from_json(description["action_space"])
        policy = make_policy(*spaces, PolicySettings.make(description["policy"]))
    except (KeyError, TypeError, UsageError) as error:
        raise DamagedFile(f"{folder / 'policy.json'} does not describe a policy of this version: {error}.") from None
    template = {
        "parameters": jax.eval_shape(policy.init, jax.random.PRNGKey(0)),
        "observation_moments": jax.eval_shape(policy.encoder.initial_moments),
    }
    tree = arrays_to_tree(template, arrays, folder / "policy.safetensors")
    return policy, tree["parameters"], tree["observation_moments"], spaces


def check_same_spaces(source: Source, saved: tuple[Any, Any]) -> None:
    """Refuse an environment whose spaces are not those that a policy was trained in.

    Raises:
        UsageError: they differ; both are shown.
    """
    if source.compiled:
        env = source.make_compiled()
        spaces = env.observation_space, env.action_space
    else:
        environments = source.make_host(1, 0)
        spaces = environments.observation_space, environments.action_space
        environments.close()
    require_same_spaces(spaces, saved, source.name)


def newest_checkpoint(run: RunDirectory) -> Checkpoint | None:
    """Return the newest sound checkpoint, ``None`` for a run that was killed before it had any."""
    store = CheckpointStore(run.checkpoints)
    return store.newest() if store.steps() else None


def refuse_without_checkpoint(run: RunDirectory, plan: Plan) -> None:
    """Refuse a run that has trained and has no checkpoint: to begin anew would destroy what it has reached.

    A run that was killed before its first checkpoint has logged nothing and has no policy; it begins at step 0.

    Raises:
        DamagedFile: there are policies or logs; they are named, and what to do.
    """
    found = []
    for one in lanes(run, plan):
        logged = [path for path in (one.metrics, one.evaluations) if path.exists() and path.stat().st_size]
        found += [*logged, *(folder / DESCRIPTION for folder in (one.policy, one.best) if has_policy(folder))]
    if found:
        names = ", ".join(str(path.relative_to(run.path)) for path in found[:MOST_NAMED])
        raise DamagedFile(
            f"{run.checkpoints} holds no checkpoint, but the run has trained: there are {names}"
            + (f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else "")
            + ". Restore a copy of checkpoints; to begin anew instead, train into another directory, or move these files away "
            "and resume."
        )


def restore(training: Training, checkpoint: Checkpoint, run: RunDirectory) -> None:
    """Put a training back to a checkpoint.

    Raises:
        UsageError: the environment's spaces have changed since.
        DamagedFile: the checkpoint does not hold what the run's plan asks for.
    """
    saved = [space_from_json(space) for space in checkpoint.record["spaces"]]
    require_same_spaces(training.spaces, (saved[0], saved[1]), training.source.name)
    state = arrays_to_tree(jax.device_get(training.state), checkpoint.arrays, run.checkpoints)
    training.restore(state, checkpoint.record)


def refuse_part_of_many(run: RunDirectory) -> None:
    """Raise a ``UsageError`` for one seed of a run of several: the state of all is kept together, in the run."""
    parent = run.path.resolve().parent
    if not run.checkpoints.exists() and (parent / "config.json").exists():
        raise UsageError(f"{run} is one seed of a run of several; resume the whole run: jumar resume {parent}.")


def lanes(run: RunDirectory, plan: Plan) -> list[RunDirectory]:
    """Return the run directory of each seed: the run itself where there is only one."""
    return [run] if plan.n_seeds is None else [run.seed(seed) for seed in plan.seeds]
