"""Running drills, several at a time."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from jumar.drills.references import CASES, Case, References
from jumar.drills.registry import Bench, Drill, Sizes, Try, Unable
from jumar.drills.results import Result


def run_drills(
    chosen: Sequence[Drill],
    folder: Path,
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    tries: int | None = None,
    jobs: int = 1,
    sizes: Sizes | None = None,
    cases: Mapping[str, Case] | None = None,
    began: Callable[[Drill], None] = lambda drill: None,
    ended: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Run drills, and return what came of each, in their order.

    Args:
        chosen: which.
        folder: where they work.
        out: where the folders of those that lost something are kept, and what is to stay.
        quick: whether they are short.
        seed: of everything random.
        tries: how many tries each has; ``None``: as many as it says itself.
        jobs: how many at a time. Each drives processes of its own.
        sizes: of the soak.
        cases: the runs that are disturbed; ``None``: those of ``CASES``.
        began: hears which drill begins.
        ended: hears what came of each, as it ends; called by one thread at a time.
    """
    references = References(folder / "references", cases or CASES)
    lock, stop = threading.Lock(), threading.Event()

    def work(drill: Drill) -> Result:
        if stop.is_set():
            return Result(drill, unable="the command was stopped before.")
        count = tries if tries is not None else drill.quick if quick else drill.whole
        place = folder / drill.name.replace("/", "-")
        place.mkdir(parents=True)
        chance = random.Random(f"{seed} {drill.name}")
        bench = Bench(place, out, count, quick, seed, chance, references, sizes or Sizes())
        with lock:
            began(drill)
        result = run_one(drill, bench, out, stop.is_set)
        with lock:
            ended(result)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, drill) for drill in chosen]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()  # those under way end with the try that they are at
            raise
    return [future.result() for future in futures]


def run_one(drill: Drill, bench: Bench, out: Path, stopped: Callable[[], bool] = lambda: False) -> Result:
    """Run one drill, and return what came of it. An exception in the drill itself counts as a loss: nothing is known then."""
    start, tries, unable = time.monotonic(), list[Try](), None
    try:
        for each in drill.work(bench):
            tries.append(each)
            if stopped():
                break
        if not tries:
            tries.append(Try("the drill", "it tried nothing"))
    except Unable as error:
        unable = str(error)
    except Exception as error:
        tries.append(Try("the drill", f"it failed itself: {type(error).__name__}: {error}"))
    kept = None
    if any(each.lost is not None for each in tries):
        kept = str(out / "lost" / bench.folder.name)
        shutil.copytree(bench.folder, kept, symlinks=True, dirs_exist_ok=True, ignore=_only_plain)
    shutil.rmtree(bench.folder, ignore_errors=True)
    return Result(drill, tries, time.monotonic() - start, unable if not tries else None, kept)


def _only_plain(folder: str, names: list[str]) -> set[str]:
    """Return the names that are not copied: pipes, sockets and devices."""
    places = {name: Path(folder) / name for name in names}
    return {name for name, path in places.items() if not (path.is_symlink() or path.is_dir() or path.is_file())}


__all__ = ["run_drills", "run_one"]
