"""What is fuzzed: each kind of file with the code that reads it."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jumar.drills.fuzzing.corpus import CONFIG, DATASET, MINARI, PRESET, REPLAY, RUN, SPACE, STUDY, SWEEP
from jumar.drills.fuzzing.mutations import forged, mutated_bytes, mutated_data
from jumar.runs import toml
from jumar.runs.files import pack_arrays, read_json, sha256

Read = Callable[[Path], object]
"""Reads what lies in a folder like the corpus; what it returns is compared with what the sound file gives."""
CHECKPOINT = "checkpoints/000000000000"


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: what it is.
        file: its path in the corpus; the newest that matches, where it is a pattern.
        readers: the ways in which it is read.
        mutate: writes a changed one (and what must change with it); returns whether a reader must notice that it was changed.
        weight: how often it is chosen.
        writes: whether a reader may change the file itself.
        crashes: whether its reader is code in C that may take the process along, so that it is not for tests.
    """

    name: str
    file: str
    readers: Sequence[Read]
    mutate: Callable[[Path, random.Random], bool]
    weight: int = 1
    writes: bool = False
    crashes: bool = False

    def path(self, corpus: Path) -> Path | None:
        """Return the file; ``None`` where the corpus has none."""
        return max(corpus.glob(self.file), default=None)


# How files are changed ------------------------------------------------------------------------------------------------


def _bytes_of(path: Path, chance: random.Random) -> bool:
    path.write_bytes(mutated_bytes(path.read_bytes(), chance))
    return False


def _json_of(what: str) -> Callable[[Path, random.Random], bool]:
    """Return a change of a file of Jumar's JSON: most often of its values, with a right digest, else of its bytes."""

    def mutate(path: Path, chance: random.Random) -> bool:
        if chance.random() < 0.15:
            path.write_bytes(mutated_bytes(path.read_bytes(), chance))
            return True
        path.write_bytes(forged(what, mutated_data(read_json(path, what), chance)))
        return False

    return mutate


def _plain_json(path: Path, chance: random.Random) -> bool:
    """Change a JSON file without a digest."""
    if chance.random() < 0.3:
        return _bytes_of(path, chance)
    data = mutated_data(json.loads(path.read_bytes()), chance)
    path.write_text(json.dumps(data), encoding="utf-8", errors="surrogatepass")
    return False


def _lines(path: Path, chance: random.Random) -> bool:
    """Change a log: bytes, or values in a few of its lines."""
    if chance.random() < 0.3:
        return _bytes_of(path, chance)
    lines = path.read_bytes().splitlines()
    for _ in range(chance.choice((1, 2, 5))):
        i = chance.randrange(len(lines))
        try:
            lines[i] = json.dumps(mutated_data(json.loads(lines[i]), chance)).encode()
        except (ValueError, RecursionError):
            continue
    path.write_bytes(b"\n".join(lines) + b"\n")
    return False


def _toml(path: Path, chance: random.Random) -> bool:
    """Change a TOML file: its values, where TOML can hold the new ones, or its bytes."""
    if chance.random() < 0.4:
        return _bytes_of(path, chance)
    data = mutated_data(tomllib.loads(path.read_text()), chance)
    try:
        lines = [f"{toml.key(name)} = {toml.value(value)}" for name, value in data.items()]
        path.write_text("\n".join(lines) + "\n")
    except (TypeError, ValueError, RecursionError):
        return _bytes_of(path, chance)
    return False


LONGEST_HEADER = 2**24
"""Characters: values that are put into each other again and again would fill the memory of the drill itself."""


def _json_within(data: object, longest: int) -> str:
    """Return JSON. Raises ``ValueError`` if it would be longer."""
    pieces, size = [], 0
    for piece in json.JSONEncoder().iterencode(data):
        size += len(piece)
        if size > longest:
            raise ValueError(f"JSON of more than {longest} characters")
        pieces.append(piece)
    return "".join(pieces)


def mutated_arrays(data: bytes, chance: random.Random) -> bytes:
    """Return a safetensors file with changed bytes, or with a changed header whose length is right."""
    if chance.random() < 0.4:
        return mutated_bytes(data, chance)
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    if chance.random() < 0.3:  # numbers that are none
        floats = np.frombuffer(rest[: len(rest) // 4 * 4], np.float32).copy()
        if len(floats):
            floats[chance.randrange(len(floats))] = chance.choice((np.nan, np.inf, -np.inf, 1e38, -0.0, 1e-45))
        return data[: 8 + length] + floats.tobytes() + rest[len(floats) * 4 :]
    spoken = header.get("__metadata__")
    if spoken and chance.random() < 0.5:  # JSON in texts: the spaces
        key = chance.choice(sorted(spoken))
        try:
            spoken[key] = _json_within(mutated_data(json.loads(spoken[key]), chance), LONGEST_HEADER)
        except (ValueError, RecursionError):
            return mutated_bytes(data, chance)
    else:
        header = mutated_data(header, chance)
    try:
        described = _json_within(header, LONGEST_HEADER).encode()
    except (ValueError, RecursionError):
        return mutated_bytes(data, chance)
    described += b" " * (-len(described) % 8)
    return len(described).to_bytes(8, "little") + described + rest


def _arrays_of(describing: str, what: str) -> Callable[[Path, random.Random], bool]:
    """Return a change of an array file, most often with its right digest in the file beside it that describes it."""

    def mutate(path: Path, chance: random.Random) -> bool:
        data = mutated_arrays(path.read_bytes(), chance)
        path.write_bytes(data)
        if chance.random() < 0.2:
            return True
        beside = path.parent / describing
        said = read_json(beside, what)
        said["arrays"][path.name] = sha256(data)
        beside.write_bytes(forged(what, said))
        return False

    return mutate


def _segment(path: Path, chance: random.Random) -> bool:
    """Change a segment of a replay buffer, most often with its right digest in its name and in the checkpoint."""
    data = mutated_arrays(path.read_bytes(), chance)
    if chance.random() < 0.3:
        path.write_bytes(data)
        return True
    from jumar.runs.segments import Segment

    beside = max(path.parents[1].glob("checkpoints/0*/checkpoint.json"))
    said = read_json(beside, "checkpoint")
    entry = next(each for each in said["record"]["segments"] if each["name"] == path.name)
    entry.update(Segment(entry["first"], entry["slots"], sha256(data)).to_json())
    beside.write_bytes(forged("checkpoint", said))
    (path.parent / entry["name"]).write_bytes(data)
    return False


def _dataset(path: Path, chance: random.Random) -> bool:
    path.write_bytes(mutated_arrays(path.read_bytes(), chance))
    return False


# How files are read ---------------------------------------------------------------------------------------------------


def _read_run(name: str) -> Read:
    def read(corpus: Path) -> object:
        """As ``jumar resume`` does before it makes anything."""
        from jumar.runs.run_directory import RunDirectory
        from jumar.training.plan import Plan
        from jumar.training.restore import newest_checkpoint

        run = RunDirectory.open(corpus / name)
        saved = run.read_config()
        plan = Plan.from_json(saved, run.config)
        found = newest_checkpoint(run, plan)
        assert found is not None
        Plan.differences_in_versions(saved, run.config)
        buffer = found.record.get("buffer")
        rows = "" if buffer is None else sha256(pack_arrays(buffer))
        return json.dumps(plan.to_json()), found.step, sha256(pack_arrays(found.arrays)), rows

    return read


def _read_checkpoints(corpus: Path) -> object:
    """As ``jumar record --every-checkpoint`` does."""
    from jumar.runs.run_directory import RunDirectory
    from jumar.training.plan import Plan
    from jumar.training.restore import checkpoint_policies

    run = RunDirectory.open(corpus / RUN)
    plan = Plan.from_json(run.read_config(), run.config)
    return [found.step for found in checkpoint_policies(run, plan, None, lambda words: None)]


def _read_policy(corpus: Path) -> object:
    """As ``jumar evaluate`` does."""
    from jumar.training.restore import parameters_of, read_saved_policy

    saved = read_saved_policy(corpus / RUN)
    parameters_of(saved, corpus / RUN)
    return sha256(pack_arrays(saved.arrays)), saved.step


def _read_warm_start(corpus: Path) -> object:
    """As ``jumar train --init-from`` does."""
    from jumar.training.warm_start import read_warm_start

    start = read_warm_start(corpus / RUN)
    return start.step, start.origin.policy


def _read_like(corpus: Path) -> object:
    """As ``jumar train --like RUN --print-config`` does."""
    return _printed("--like", str(corpus / RUN))


def _read_overview(corpus: Path) -> object:
    """As ``jumar list runs`` does."""
    from jumar.runs.overview import find_runs

    json.dumps([run.to_json() for run in find_runs(corpus / RUN)])
    return None


def _read_finished(corpus: Path) -> object:
    """As ``jumar compare`` does with runs that are there."""
    from jumar.runs.run_directory import RunDirectory
    from jumar.studies.cells import is_finished
    from jumar.studies.found_runs import read_earlier, read_run
    from jumar.training.plan import Plan

    run = RunDirectory.open(corpus / RUN)
    plan = Plan.from_json(run.read_config(), run.config)
    is_finished(run, plan.total_timesteps)
    read_run(run, "ppo", plan, 0)
    read_earlier([run.path])
    return None


def _read_logs(corpus: Path) -> object:
    """As ``jumar resume`` does: what came after the checkpoint is cut off."""
    from jumar.runs import logs

    for name in ("metrics.jsonl", "evaluations.jsonl"):
        path = corpus / RUN / name
        logs.read(path)
        logs.read_last(path)
        logs.is_as_digested(path, {"bytes": 100, "sha256": "0" * 64})
        logs.cut(path, 256)
        logs.read(path)
    return None


def _read_curve(corpus: Path) -> object:
    """As the picture of a run is drawn."""
    from jumar.report.learning_curve import learning_curve
    from jumar.runs import logs

    metrics, evaluations = (logs.read(corpus / RUN / name) for name in ("metrics.jsonl", "evaluations.jsonl"))
    learning_curve(corpus / "curve.png", metrics, evaluations, "a run")
    return None


def _read_page(name: str) -> Read:
    def read(corpus: Path) -> object:
        """As ``jumar report`` does, but for the pictures of browsers without scripts."""
        from jumar.web.gathering import Gathering
        from jumar.web.page import make_page

        make_page(Gathering([corpus / name]), stills=False).html()
        return None

    return read


def _read_data(corpus: Path) -> object:
    """As ``jumar train --dataset`` does."""
    from jumar.runs.datasets import read_dataset

    read_dataset(corpus / DATASET)
    return None


def _read_minari(corpus: Path) -> object:
    from jumar.runs.minari import read_minari

    read_minari(corpus / MINARI)
    return None


def _read_settings(corpus: Path) -> object:
    """As the first half of that does."""
    from jumar.algorithms.registry import ALGORITHMS
    from jumar.training.config_file import read_config

    config = read_config(corpus / CONFIG)
    chosen = ALGORITHMS[config.values.get("algorithm", "ppo")]
    config.check_keys(chosen)
    config.settings(chosen)
    return None


def _choose_preset(corpus: Path) -> object:
    """As the first half of ``jumar train --preset FILE`` does."""
    from jumar.algorithms.registry import ALGORITHMS
    from jumar.training.config_file import choose_preset

    choose_preset(ALGORITHMS["ppo"], "CartPole-v1", corpus / PRESET)
    return None


def _read_config(corpus: Path) -> object:
    """As ``jumar train --config FILE --print-config`` does."""
    return _printed("--config", str(corpus / CONFIG))


def _read_preset(corpus: Path) -> object:
    """As ``jumar train --preset FILE`` does."""
    words = ("ppo", "jax/CartPole-v1", "--total-timesteps", "1000", "--preset", str(corpus / PRESET))
    return _printed(*words)


def _printed(*words: str) -> None:
    from jumar.algorithms.registry import ALGORITHMS
    from jumar.cli import train

    train.run([*words, "--print-config"], ALGORITHMS)


def _read_space(corpus: Path) -> object:
    """As ``jumar sweep`` does before it trains."""
    from jumar.studies.space import read_space
    from jumar.studies.trial_runs import check_together

    check_together(read_space(corpus / SPACE), 0)
    return None


def _read_trials(corpus: Path) -> object:
    """As ``jumar sweep`` does where it goes on."""
    from jumar.studies.search import best_of
    from jumar.studies.space import read_space
    from jumar.studies.sweep_page import rows
    from jumar.studies.trials import Record

    record = Record.read(corpus / SWEEP)
    space = read_space(corpus / SPACE)
    best_of(space, record.trials)
    rows(space, record.trials)
    return None


def _read_methods(corpus: Path) -> object:
    """As ``jumar compare --from`` does."""
    from jumar.studies.found_runs import find_runs, read_methods_of

    list(find_runs(corpus / STUDY, lambda words: None))
    return tuple(read_methods_of(corpus / STUDY))


TARGETS: Sequence[Target] = (
    Target(
        "config.json",
        f"{RUN}/config.json",
        (_read_run(RUN), _read_overview, _read_like, _read_finished),
        _json_of("run configuration"),
        4,
    ),
    Target(
        "policy.json", f"{RUN}/policy.json", (_read_policy, _read_warm_start, _read_finished), _json_of("policy"), 4
    ),
    Target(
        "policy.safetensors",
        f"{RUN}/policy.safetensors",
        (_read_policy, _read_warm_start),
        _arrays_of("policy.json", "policy"),
        2,
    ),
    Target(
        "checkpoint.json",
        f"{RUN}/{CHECKPOINT}/checkpoint.json",
        (_read_run(RUN), _read_checkpoints, _read_overview, _read_warm_start),
        _json_of("checkpoint"),
        3,
    ),
    Target(
        "state.safetensors",
        f"{RUN}/{CHECKPOINT}/state.safetensors",
        (_read_run(RUN), _read_checkpoints),
        _arrays_of("checkpoint.json", "checkpoint"),
        2,
    ),
    Target("replay: config.json", f"{REPLAY}/config.json", (_read_run(REPLAY),), _json_of("run configuration"), 1),
    Target(
        "replay: checkpoint.json",
        f"{REPLAY}/checkpoints/*/checkpoint.json",
        (_read_run(REPLAY),),
        _json_of("checkpoint"),
        2,
    ),
    Target("replay: metrics.jsonl", f"{REPLAY}/metrics.jsonl", (_read_page(REPLAY),), _lines, 1),
    Target("replay: segment", f"{REPLAY}/replay/*.safetensors", (_read_run(REPLAY),), _segment, 2),
    Target(
        "metrics.jsonl",
        f"{RUN}/metrics.jsonl",
        (_read_logs, _read_overview, _read_finished, _read_page(RUN)),
        _lines,
        4,
        writes=True,
    ),
    Target(
        "evaluations.jsonl",
        f"{RUN}/evaluations.jsonl",
        (_read_logs, _read_overview, _read_finished, _read_page(RUN)),
        _lines,
        3,
        writes=True,
    ),
    Target("logs, drawn", f"{RUN}/metrics.jsonl", (_read_curve,), _lines),
    Target("evaluations, drawn", f"{RUN}/evaluations.jsonl", (_read_curve,), _lines),
    Target("data set", DATASET, (_read_data,), _dataset, 4),
    Target("Minari: metadata.json", f"{MINARI}/data/metadata.json", (_read_minari,), _plain_json, 1),
    Target("Minari: HDF5", f"{MINARI}/data/main_data.hdf5", (_read_minari,), _bytes_of, 1, crashes=True),
    Target("configuration file", CONFIG, (_read_settings, _read_config), _toml, 4),
    Target("preset", PRESET, (_choose_preset, _read_preset), _toml, 2),
    Target("space", SPACE, (_read_space,), _toml, 3),
    Target("trials.json", f"{SWEEP}/trials.json", (_read_trials,), _json_of("sweep"), 3),
    Target("comparison.json", f"{STUDY}/comparison.json", (_read_methods,), _json_of("comparison"), 2),
    Target("results.json", f"{STUDY}/results.json", (_read_page(STUDY),), _plain_json, 1),
)
"""Every kind of file that is read back, or that a user writes."""


def by_name() -> Mapping[str, Target]:
    """Return the targets by name."""
    return {target.name: target for target in TARGETS}
