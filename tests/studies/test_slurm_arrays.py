"""Jobs in SLURM's arrays: submitted together, taken up by the next process, told apart where lost. SLURM is a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jumar.errors import UsageError
from jumar.studies import slurm, slurm_arrays
from jumar.studies.attempts import Assignment
from jumar.studies.executor import Failure
from jumar.studies.given import GivenJobs
from jumar.studies.slurm import Queued
from jumar.studies.slurm_arrays import SlurmArrays, SlurmTask
from jumar.studies.where import Where, opened

OUT = Path("c")


class Slurm:
    """What a SLURM would know: arrays that were submitted, and the tasks in its queue."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, list[int], int, list[str]]] = []
        self.queued: dict[tuple[str, int], Queued] = {}
        self.cancelled: list[str] = []
        self.became: dict[str, tuple[str, str]] = {}
        self.refuse: list[str] = []
        self.asked = 0

    def submit(self, place: Path, name: str, indexes: Sequence[int], processors: int, options: Sequence[str]) -> str:
        if self.refuse:
            raise UsageError(self.refuse.pop(0))
        number = str(100 + len(self.submitted))
        self.submitted.append((name, list(indexes), processors, list(options)))
        for index in indexes:
            self.queued[name, index] = Queued(name, index, f"{number}_{index}", "PENDING", "Resources")
        return number

    def queue(self, names: Sequence[str]) -> list[Queued]:
        self.asked += 1
        return [one for one in self.queued.values() if one.name in names]

    def now(self, task: SlurmTask, state: str, reason: str = "None") -> None:
        """Let the queue say this of a task."""
        one = self.queued[task.array or "", task.files.index]
        self.queued[one.name, one.index] = Queued(one.name, one.index, one.id, state, reason)

    def gone(self, task: SlurmTask, state: str = "", nodes: str = "") -> None:
        """Take a task out of the queue."""
        one = self.queued.pop((task.array or "", task.files.index))
        self.became[one.id] = (state, nodes)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    known = Slurm()
    monkeypatch.setattr(slurm, "submit", known.submit)
    monkeypatch.setattr(slurm, "queue", known.queue)
    monkeypatch.setattr(slurm, "cancel", known.cancelled.append)
    monkeypatch.setattr(slurm, "what_became_of", lambda job: known.became.get(job, ("", "")))
    return known


def arrays(warnings: list[str] | None = None, **changes: Any) -> SlurmArrays:
    asked: dict[str, Any] = {"pause": 0.0, "ask_queue": 0.0, "unseen": 0.0, **changes}
    return SlurmArrays(GivenJobs(OUT), 2, ["--time=1:00"], [].append if warnings is None else warnings.append, **asked)


def start(executor: SlurmArrays, seed: int = 0, size: int = 2) -> SlurmTask:
    run = OUT / "runs" / f"seed_{seed}"
    return executor.start(f"seed_{seed}", lambda: ["train", f"--run-dir={run}"], run, OUT / "a.log", tuple(range(size)))


def test_jobs_that_begin_together_are_one_array(cluster: Slurm) -> None:
    executor = arrays()
    tasks = [start(executor, seed) for seed in range(3)]
    assert cluster.submitted == []
    assert not tasks[0].over()
    assert [each[1:] for each in cluster.submitted] == [([0, 1, 2], 2, ["--time=1:00"])]
    later, single = start(executor, 3), start(executor, 4, size=1)
    assert not later.over()
    assert [each[1:3] for each in cluster.submitted[1:]] == [([3], 2), ([4], 1)]
    assert len({task.files.job for task in [*tasks, later, single]}) == 5
    told = Assignment.read(tasks[1].files.job)
    assert (told.words, told.processors, told.run) == (("train", "--run-dir=c/runs/seed_1"), 2, "c/runs/seed_1")


def test_a_large_study_is_several_arrays(cluster: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_arrays, "MOST_AT_ONCE", 2)
    executor = arrays()
    tasks = [start(executor, seed) for seed in range(5)]
    tasks[0].over()
    assert [each[1] for each in cluster.submitted] == [[0, 1], [2, 3], [4]]


def test_what_a_task_wrote_is_its_ending_and_its_files_are_removed(cluster: Slurm) -> None:
    executor = arrays()
    done, failing = start(executor, 0), start(executor, 1)
    assert not done.over()
    done.files.write_ending(None)
    failing.files.write_ending(Failure("torn."))
    assert (done.over(), done.failure(), failing.over(), failing.failure()) == (True, None, True, Failure("torn."))
    for task in (done, failing):
        task.close()
    executor.given.remove_empty()
    assert not list(OUT.glob("attempts/*"))


@pytest.mark.parametrize(
    ("state", "nodes", "words"),
    [
        ("NODE_FAIL", "node7", "SLURM's job 100_0 ended on node7 (NODE_FAIL) without saying how."),
        ("CANCELLED by 0", "None assigned", "SLURM's job 100_0 ended (CANCELLED by 0) without saying how."),
        ("", "", "SLURM's job 100_0 ended without saying how."),
    ],
)
def test_a_task_that_vanishes_is_lost_and_slurms_reason_is_told(
    state: str, nodes: str, words: str, cluster: Slurm
) -> None:
    task = start(arrays())
    assert not task.over()
    cluster.now(task, "RUNNING")
    assert not task.over()
    cluster.gone(task, state, nodes)
    assert not task.over()  # its ending may come a little later
    assert task.over()
    failure = task.failure()
    assert failure == Failure(words)
    assert failure is not None
    assert failure.lost


def test_a_task_that_never_began_to_speak_may_not_see_the_folder(cluster: Slurm) -> None:
    task = start(arrays())
    task.over()
    cluster.gone(task, "FAILED", "node7")
    assert [task.over(), task.over()] == [False, True]
    failure = task.failure()
    assert failure is not None
    assert f"its node may not see {task.files.place}, which all nodes must share" in failure.words


def test_an_ending_that_comes_late_counts(cluster: Slurm) -> None:
    task = start(arrays(unseen=3600.0))
    task.over()
    cluster.gone(task, "COMPLETED")
    assert not task.over()
    assert not task.over()
    task.files.write_ending(None)
    assert (task.over(), task.failure()) == (True, None)


def test_a_job_whose_time_was_over_is_lost_so_that_it_goes_on(cluster: Slurm) -> None:
    executor = arrays()
    task, stopped = start(executor, 0), start(executor, 1)
    for each in (task, stopped):
        each.over()
        cluster.now(each, "RUNNING")
    stopped.let_go()
    for each in (task, stopped):
        each.files.write_ending(Failure("stopped by SIGTERM.", interrupted=True))
    assert task.over()
    assert stopped.over()
    assert [each.failure() and each.failure().lost for each in (task, stopped)] == [True, False]  # type: ignore[union-attr]


def test_a_stop_reaches_tasks_that_run_and_takes_the_others_out_of_the_queue(cluster: Slurm) -> None:
    executor = arrays()
    running, waiting = start(executor, 0), start(executor, 1)
    running.over()
    cluster.now(running, "RUNNING")
    new = start(executor, 2)
    for task in (running, waiting, new):
        task.let_go()
    assert (running.over(), waiting.over(), new.over()) == (False, True, True)
    assert running.files.told_to_stop()
    assert cluster.cancelled == ["100_1"]
    assert len(cluster.submitted) == 1


def test_the_next_process_takes_up_what_is_in_the_queue(cluster: Slurm) -> None:
    first = arrays()
    tasks = [start(first, seed) for seed in range(4)]
    tasks[0].over()
    cluster.now(tasks[0], "RUNNING")
    tasks[1].files.write_ending(None)  # it was done after the first process was killed
    cluster.gone(tasks[1])
    cluster.gone(tasks[2])  # it died with its node
    unsubmitted = start(first, 4)
    second = arrays()

    def never() -> list[str]:
        raise AssertionError("it is taken up")

    taken = second.start("seed_0", never, tasks[0].run, OUT / "a.log", (0, 1))
    assert (taken.id, taken.files.index, taken.waits) == ("100_0", 0, False)
    others = [start(second, seed) for seed in (2, 3, 4)]
    assert not taken.over()
    assert [each[1] for each in cluster.submitted] == [[0, 1, 2, 3], [0, 1]]  # of a folder of its own: seeds 2 and 4
    assert others[1].files.place.name == tasks[3].files.place.name
    assert not tasks[1].files.job.exists()
    assert not unsubmitted.files.job.exists()
    taken.files.write_ending(None)
    assert (taken.over(), taken.failure()) == (True, None)


def test_a_job_that_the_last_process_wanted_to_stop_goes_on(cluster: Slurm) -> None:
    first = arrays()
    task = start(first)
    task.over()
    cluster.now(task, "RUNNING")
    task.let_go()
    taken = start(arrays())
    assert taken.files.told_to_stop()
    taken.files.write_ending(Failure("stopped by SIGTERM.", interrupted=True))
    assert taken.over()
    failure = taken.failure()
    assert failure is not None
    assert failure.lost


def test_where_slurm_does_not_answer_at_first_nothing_is_given_twice(
    cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = start(arrays())
    task.over()

    def silent(names: Sequence[str]) -> list[Queued]:
        raise UsageError("squeue did not answer within 60 s.")

    monkeypatch.setattr(slurm, "queue", silent)
    with pytest.raises(UsageError, match="squeue did not answer"):
        arrays()
    assert not task.over()  # later it only waits
    assert task.files.job.exists()


def test_a_refusal_at_first_is_an_error_and_later_is_tried_again(cluster: Slurm) -> None:
    cluster.refuse = ["sbatch refused: no such partition."]
    task = start(arrays())
    with pytest.raises(UsageError, match="no such partition"):
        task.over()
    warnings: list[str] = []
    executor = arrays(warnings)
    start(executor, 1).over()
    cluster.refuse = ["sbatch refused: too many jobs."]
    late = start(executor, 2)
    assert not late.over()
    assert warnings == ["sbatch refused: too many jobs. It is tried again."]
    assert not late.over()
    assert [each[1] for each in cluster.submitted] == [[0], [1]]
    cluster.refuse = ["sbatch refused: too many jobs."] * 10
    last = start(executor, 3)
    for _ in range(slurm_arrays.MOST_REFUSALS):
        assert not last.over()
    with pytest.raises(UsageError, match="too many jobs"):
        last.over()


def test_an_array_whose_answer_was_late_is_not_submitted_again(cluster: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = arrays([])
    start(executor, 0).over()

    def taken_but_late(place: Path, name: str, indexes: Sequence[int], processors: int, options: Sequence[str]) -> str:
        cluster.submit(place, name, indexes, processors, options)
        raise UsageError("sbatch did not answer within 60 s.")

    monkeypatch.setattr(slurm, "submit", taken_but_late)
    task = start(executor, 1)
    assert not task.over()
    monkeypatch.setattr(slurm, "submit", cluster.submit)
    assert not task.over()
    assert [each[1] for each in cluster.submitted] == [[0], [1]]


def test_a_job_that_can_never_begin_is_warned_of_once(cluster: Slurm) -> None:
    warnings: list[str] = []
    executor = arrays(warnings)
    tasks = [start(executor, seed) for seed in range(2)]
    tasks[0].over()
    for task in tasks:
        cluster.now(task, "PENDING", "PartitionTimeLimit")
    tasks[0].over()
    tasks[0].over()
    assert warnings == ["SLURM does not begin seed_0 (job 100_0): PartitionTimeLimit."]


def test_the_queue_is_not_asked_at_every_look(cluster: Slurm) -> None:
    executor = arrays(ask_queue=3600.0)
    task = start(executor)
    before = cluster.asked
    for _ in range(20):
        task.over()
    assert cluster.asked == before


def test_elsewhere_a_study_that_slurm_may_be_at_work_on_is_refused(cluster: Slurm) -> None:
    start(arrays()).over()
    with pytest.raises(
        UsageError, match=r"go on with --on slurm, or cancel them \(scancel --name=jumar-[0-9a-f]{12}\)"
    ):
        opened(Where(), OUT, [].append).__enter__()
    with opened(Where(on="slurm", slurm_options="--time=9"), OUT, [].append) as executor:
        assert executor.outlives
        assert executor.room is None
        assert executor.shares(2, even=True) == [(0,), (0,)]


def test_elsewhere_a_study_goes_on_once_slurm_has_none_of_its_jobs(cluster: Slurm) -> None:
    """An array is written down before it is submitted, and SLURM may have refused it."""
    task = start(arrays())
    task.over()
    cluster.queued.clear()
    with opened(Where(), OUT, [].append) as executor:
        assert not executor.outlives
