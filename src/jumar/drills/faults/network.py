"""No network: nothing that Jumar does needs one."""

from __future__ import annotations

from collections.abc import Iterator

from jumar.drills.machine import without_network
from jumar.drills.processes import command, complaint, run
from jumar.drills.registry import Bench, Try, drill


@drill(
    "network/none",
    "Commands run where there is no network, not even to this machine itself (unshare --net).",
    "training ends with the policy of a run that nothing disturbed; evaluate, report, list and verify work.",
    quick=3,
)
def none(bench: Bench) -> Iterator[Try]:
    reference = bench.references.of("host")
    target = reference.copy(bench.folder / "run")
    commands = {
        "train": reference.case.train(bench.folder / "new"),
        "evaluate": ["evaluate", str(target), "--episodes", "2"],
        "report": ["report", str(target), "--out", str(bench.folder / "page.html")],
        "list": ["list", "envs"],
        "verify": ["verify", "--quick", "distributions"],
        "help": ["train", "ppo", "--help"],
    }
    for name in bench.cases(sorted(commands)):
        ended = run(without_network(command(*commands[name])), bench.folder / name)
        wrong = complaint(ended, (0,))
        if wrong is None and name == "train":
            wrong = reference.difference(bench.folder / "new")
        yield Try(name, wrong)
