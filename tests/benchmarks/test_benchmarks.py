"""The benchmark's arithmetic, its table, and how it runs its sides; no speed is measured here."""

from __future__ import annotations

import importlib
import json
import math
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jumar.algorithms.registry import ALGORITHMS
from jumar.cli.grammar import build
from jumar.cli.train import request_from

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEERS = BENCHMARKS / "peers"

# The benchmark is a script beside its modules, and no package.
sys.path.append(str(BENCHMARKS))
report: Any = importlib.import_module("report")
harness: Any = importlib.import_module("harness")
speed: Any = importlib.import_module("speed")
off_policy: Any = importlib.import_module("off_policy")
replay: Any = importlib.import_module("replay")
sys.path.remove(str(BENCHMARKS))


def peer(name: str) -> Any:
    """Import a script that is run beside its neighbours."""
    sys.path.insert(0, str(PEERS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PEERS))


def measurement(rate: float, compile_time_s: float | None = None, versions: dict[str, str] | None = None) -> Any:
    return report.Measurement(10_000, rate, 4.0, 300.4, compile_time_s, versions or {})


PROFILE = {
    "iteration": 100.0,
    "simulator": 50.0,
    "policy": 4.0,
    "collecting": 60.0,
    "epochs": 30.0,
    "advantages": 5.0,
    "arithmetic": 12.5,
}


UPDATE = {"update": 20.0, "gradient": 1.0, "product": 0.75, "products": 12.0, "search": 0.5, "critic": 5.0}


def example() -> Any:
    jumar = report.SideResult("jumar", "Jumar", {"": measurement(19_000, 6.54)}, {}, "")
    jumar.rounds = [measurement(20_000, 1.0), measurement(22_000, 1.2), measurement(24_000, 1.1)]
    parts = report.SideResult("profile", "Jumar, in parts", {"": measurement(20_000)}, {}, "")
    parts.rounds = [replace(measurement(20_000), profile={**PROFILE, "iteration": ms}) for ms in (99.0, 100.0, 101.0)]
    sb3 = report.SideResult("sb3", "SB3", {"a": measurement(5_000, None, {"torch": "2.0"})}, {"b": "no\nroom"}, "a")
    sb3.rounds = [measurement(5_000), measurement(5_000), measurement(4_000)]
    broken = report.SideResult("simulator", "EnvPool alone", failure="No module named 'envpool'")
    result = report.ComparisonResult("cheetah", "HalfCheetah", 2_000, None, [jumar, sb3, broken, parts])
    machine = {"processor": "A processor", "cores": 2, "system": "Linux x86_64", "load_before": 0.1}
    return report.Report("2026-01-02 03:04 UTC", False, machine, {"jumar": "0.1"}, [result])


def test_ratios_are_taken_within_each_round() -> None:
    assert report.paired_ratio([20.0, 60.0, 30.0], [10.0, 20.0, 10.0]) == report.Spread(3.0, 2.0, 3.0)
    assert report.paired_ratio([20.0, 60.0], [10.0]) == report.Spread(2.0, 2.0, 2.0)
    assert report.paired_ratio([20.0], []) is None


def test_an_iteration_is_shown_in_parts_beside_its_limit() -> None:
    lines = report.profile_table([PROFILE], 2_000).splitlines()
    assert lines[0] == "| one iteration of Jumar (2,000 steps) | ms | share | limit, ms |"
    assert lines[2:] == [
        "| simulator | 50.0 | 50 % | 50.0 (the simulator alone) |",
        "| policy | 4.0 | 4 % |  |",
        "| waiting and copying between them | 6.0 | 6 % |  |",
        "| values, advantages, flight record | 5.0 | 5 % |  |",
        "| epochs of minibatches | 30.0 | 30 % | 12.5 (their products at the peak rate) |",
        "| all else | 5.0 | 5 % |  |",
        "| **whole iteration** | 100.0 | 100 % | 62.5 |",
    ]


def test_an_update_is_shown_in_parts_and_a_product_in_gradients_of_its_round() -> None:
    rounds = [UPDATE, {**UPDATE, "gradient": 0.5}, {**UPDATE, "product": 1.0, "products": 16.0}]
    lines = report.update_table(rounds, 2_048).splitlines()
    assert lines == [
        "| one update of Jumar's TRPO (2,048 rows) | ms | share |",
        "| --- | ---: | ---: |",
        "| gradient of the objective | 1.00 | 5 % |",
        "| 16 Fisher-vector products | 12.00 | 60 % |",
        "| line search | 0.50 | 2 % |",
        "| epochs of the critic | 5.00 | 25 % |",
        "| values, advantages, flight record | 1.50 | 8 % |",
        "| **whole update** | 20.00 | 100 % |",
        "",
        "A Fisher-vector product takes as long as 1.00 (0.75 to 1.50) gradients of the same rows.",
    ]


def test_algorithms_are_measured_by_the_first_of_them() -> None:
    sides = [report.SideResult(name, name, {"": measurement(1.0)}, {}, "") for name in ("trpo", "npg", "acktr")]
    sides[0].rounds = [measurement(20_000), measurement(10_000)]
    sides[1].rounds = [measurement(30_000), measurement(20_000)]
    result = report.ComparisonResult("natural", "Natural steps", 2_048, "trpo", sides)
    lines = report.to_markdown(replace(example(), comparisons=[result])).splitlines()
    start = lines.index("## Natural steps") + 2
    assert lines[start].split(" | ")[2] == "times as fast as trpo"
    assert [line.split(" | ")[2] for line in lines[start + 2 : start + 5]] == ["", "1.75 (1.50 to 2.00)", ""]


def test_steps_are_whole_iterations_and_last_long_enough() -> None:
    assert report.round_steps(1000.0, 10.0, 2048) == 5 * 2048
    assert report.round_steps(1024.0, 10.0, 2048) == 5 * 2048
    assert report.round_steps(1.0, 0.1, 2048) == 2048


def test_the_table() -> None:
    lines = report.to_markdown(example()).splitlines()
    start = lines.index("## HalfCheetah") + 4
    assert lines[start : start + 3] == [
        "| Jumar | 22,000 (20,000 to 24,000) |  | 2,500 | 6.5 / 1.1 | 300 |",
        "| SB3 (a) | 5,000 (4,000 to 5,000) | 4.40 (4.00 to 6.00) | 2,500 |  | 300 |",
        "| EnvPool alone | failed |  |  |  |  |",
    ]
    assert "jumar 0.1." in lines
    assert "SB3: torch 2.0." in lines
    assert "- cheetah, EnvPool alone: No module named 'envpool'" in lines
    assert "- cheetah, SB3, b: no room" in lines
    assert report.profile_table([PROFILE], 2_000) in "\n".join(lines)  # medians over the rounds
    assert not any("Jumar, in parts" in line for line in lines)


def test_the_page_says_when_its_figures_are_not_to_be_quoted() -> None:
    fair = report.to_markdown(example())
    assert not any(word in fair for word in ("Quick run", "Busy machine", "Interrupted"))
    doubtful = example()
    doubtful.quick = doubtful.interrupted = True
    doubtful.machine["load_before"] = 1.7
    page = report.to_markdown(doubtful)
    assert "Quick run" in page
    assert "the load was 1.7" in page
    assert "Interrupted" in page


def test_files_replace_older_ones(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    report.write(report.Report("then", True, example().machine, {}), folder)
    report.write(example(), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["speed.json", "speed.md"]
    kept = json.loads((folder / "speed.json").read_text())
    assert kept["date"] == "2026-01-02 03:04 UTC"
    rounds = kept["comparisons"][0]["sides"][0]["rounds"]
    assert [one["steps_per_second"] for one in rounds] == [20_000, 22_000, 24_000]
    assert (folder / "speed.md").read_text() == report.to_markdown(example())


def test_a_result_is_the_last_line() -> None:
    output = 'hello\n{"total_timesteps": 1}\n{"total_timesteps": 64, "steps_per_second": 8, "compile_time_s": null}\n\n'
    assert harness.read_measurement(output, 2.0, 3.0) == report.Measurement(64, 8.0, 2.0, 3.0, None, {}, {})


@pytest.mark.parametrize(
    "output",
    [
        "",
        "done",
        "[1]",
        '{"total_timesteps": 64}',
        '{"total_timesteps": 64, "steps_per_second": null}',
        '{"total_timesteps": 64, "steps_per_second": NaN}',
        '{"total_timesteps": 0, "steps_per_second": 8.0}',
    ],
)
def test_what_is_no_result_is_refused(output: str) -> None:
    with pytest.raises(harness.Failed):
        harness.read_measurement(output, 2.0, 3.0)


def test_reasons_do_not_tell_where_the_checkout_is() -> None:
    assert harness.last_line(f"first\nno {BENCHMARKS.resolve()}/x.py\n \n") == "no ./benchmarks/x.py"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_is_measured_from_outside(tmp_path: Path) -> None:
    code = 'import os; print(os.environ["JAX_PLATFORMS"]); print(\'{"total_timesteps": 4, "steps_per_second": 2.5}\')'
    measured = harness.measure(python(code), tmp_path, 60.0)
    assert measured.steps_per_second == 2.5
    assert measured.process_s > 0.0
    assert measured.peak_memory_mib > 1.0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('no such thing')", "ValueError: no such thing"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.abort()", "exit code -6"),
        ("pass", "no result"),
    ],
)
def test_a_process_that_fails_says_why(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(harness.Failed, match=reason):
        harness.measure(python(code), tmp_path, 60.0)


def test_a_process_that_hangs_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(harness.Failed, match="longer than 0 s"):
        harness.measure(python("import time; time.sleep(600)"), tmp_path, 0.2)


def test_a_command_that_does_not_exist_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(harness.Failed, match="could not be started"):
        harness.measure([str(tmp_path / "nothing")], tmp_path, 1.0)


SIDE = """
import json, sys
name, rate, log, most, _, steps = sys.argv[1:]
with open(log, "a") as file:
    file.write(f"{name} {steps}\\n")
if int(steps) > int(most):
    sys.exit("too many")
print(json.dumps({"total_timesteps": int(steps), "steps_per_second": float(rate)}))
"""


def fake_variant(name: str, rate: float, log: Path, most: int = 10_000) -> Any:
    return harness.Variant(name, ("-c", SIDE, name, str(rate), str(log), str(most)))


def test_sides_take_turns_and_one_that_fails_leaves_the_rest_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sides = (
        harness.Side("a", "A", (fake_variant("slow", 50.0, log), fake_variant("fast", 100.0, log)), trial_steps=10),
        harness.Side("b", "B", (fake_variant("breaks later", 200.0, log, most=20),), trial_steps=20),
        harness.Side("c", "C", (fake_variant("breaks at once", 1.0, log, most=0),), trial_steps=30),
        harness.Side("d", "D", (fake_variant("", 10.0, log), fake_variant("broken", 1.0, log, most=0)), trial_steps=40),
    )
    comparison = harness.Comparison("fake", "Fake", 50, sides)
    result = report.ComparisonResult("fake", "Fake", 50)
    saved: list[int] = []
    said: list[str] = []

    def save() -> None:
        saved.append(sum(len(side.rounds) for side in result.sides))

    harness.compare(comparison, harness.Effort(2.0, 2), harness.Peers(said.append), result, said.append, save)
    assert log.read_text().splitlines() == [
        *("slow 10", "fast 10", "breaks later 20", "breaks at once 30", " 40", "broken 40"),
        *("fast 200", "breaks later 400", " 50"),
        *("fast 200", " 50"),
    ]
    a, b, c, d = result.sides
    assert (a.variant, a.rates, a.failure) == ("fast", [100.0, 100.0], None)
    assert (b.rates, b.failure) == ([], "round 1: too many")
    assert (c.variant, c.failure, c.failed_trials) == (None, "too many", {})
    assert (d.rates, d.failure, d.failed_trials) == ([10.0, 10.0], None, {"broken": "too many"})
    assert saved == [0, 0, 0, 0, 1, 1, 2, 3, 4]


def test_a_peer_that_cannot_be_installed_fails_alone_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def broken(peer: str, say: Any) -> Path:
        attempts.append(peer)
        raise harness.Failed("no network")

    monkeypatch.setattr(harness, "install", broken)
    peers = harness.Peers(lambda words: None)
    for _ in range(2):
        with pytest.raises(harness.Failed, match="no network"):
            peers.interpreter("sb3")
    assert attempts == ["sb3"]
    assert peers.interpreter(None) == Path(sys.executable)


def options(words: tuple[str, ...]) -> dict[str, str]:
    return {a: b for a, b in pairwise(words) if a.startswith("--") and not b.startswith("--")}


def request_of(words: tuple[str, ...]) -> Any:
    assert words[:3] == ("-m", "jumar", "train")
    return request_from(build(ALGORITHMS, words[3])[1]["train"].read(list(words[3:])), ALGORITHMS)


@pytest.mark.parametrize(
    "comparison",
    [one for one in speed.comparisons().values() if one.reference is None and one.name not in off_policy.WORKLOADS],
    ids=lambda c: c.name,
)
def test_all_sides_are_given_the_same_work_and_jumar_knows_its_options(comparison: Any) -> None:
    jumar = next(side for side in comparison.sides if side.name == "jumar")
    words = jumar.variants[0].words
    request = request_of(words)
    assert (request.eval_every, request.checkpoint_every, request.preset) == (0, 0, "none")
    assert (request.n_seeds or 1) == jumar.seeds
    ours = options(words)
    special = {"pong": speed.PONG, "recurrent": speed.RECURRENT}
    method = special.get(comparison.name) or {"ppo": speed.PPO, "trpo": speed.TRPO}[words[3]]
    work = {f"--{name.replace('_', '-')}": str(number) for name, number in method.settings.items()}
    own = {"--joint-gradient": "false"} if comparison.name.startswith("apart") else {}
    for side in comparison.sides:
        for variant in side.variants:
            theirs = options(variant.words)
            assert all((PEERS / word).exists() for word in variant.words if word.endswith(".py"))
            if side.name in ("jumar", words[3], "sb3", "rejax", "profile", "update"):
                assert int(theirs["--n-envs"]) * int(theirs["--n-steps"]) == comparison.rollout
                assert {name: theirs[name] for name in work} == work
                has_own = side.name in ("jumar", "profile", "update")
                assert theirs.get("--joint-gradient") == (own.get("--joint-gradient") if has_own else None)
            if side.name in ("jumar", "rejax"):
                assert theirs.get("--n-seeds", "1") == ours.get("--n-seeds", "1")
            if "--env" in theirs:
                assert words[4].endswith("/" + theirs["--env"]) or words[4] == theirs["--env"]
            if "--algorithm" in theirs:
                assert theirs["--algorithm"].removeprefix("recurrent-") == words[3]


def test_algorithms_of_one_comparison_differ_in_nothing_but_their_names() -> None:
    compared = {name: one for name, one in speed.comparisons().items() if one.reference is not None}
    assert compared.keys() >= {"natural", "penalty"}
    for comparison in compared.values():
        assert comparison.sides[0].name == comparison.reference
        requests = [request_of(side.variants[0].words) for side in comparison.sides]
        assert [request.algorithm for request in requests] == [side.name for side in comparison.sides]
        for request in requests:
            assert replace(request, algorithm="") == replace(requests[0], algorithm="")
            assert request.n_envs * int(request.settings["n_steps"]) == comparison.rollout


def test_an_algorithm_is_compared_once_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = (speed.Method("a2c", {}), speed.Method("to-come", {}))
    monkeypatch.setattr(speed, "RELATIVES", {"later": ("Later", 32, methods)})
    monkeypatch.setattr(speed, "ALGORITHMS", {"a2c": None})
    assert speed.relatives() == {}
    monkeypatch.setattr(speed, "ALGORITHMS", {"a2c": None, "to-come": None})
    assert [side.name for side in speed.relatives()["later"].sides] == ["a2c", "to-come"]


@pytest.mark.parametrize("method", [speed.PPO, speed.TRPO], ids=lambda method: method.algorithm)
def test_the_peer_s_script_takes_the_settings_of_any_algorithm(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = speed.sb3_side("HalfCheetah-v5", method, (8, 256)).variants[-1].words
    monkeypatch.setattr(sys, "argv", [*words, "--total-timesteps", "100"])
    arguments = peer("sb3_speed").read_arguments()
    assert (arguments.algorithm, arguments.env) == (method.algorithm, "HalfCheetah-v5")
    assert (arguments.n_envs, arguments.n_steps, arguments.total_timesteps) == (8, 256, 100)
    assert (arguments.vector, arguments.threads) == ("subproc", 2)
    assert arguments.settings == method.settings


@pytest.mark.slow
def test_the_parts_of_an_update_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    method = speed.Method("trpo", {"cg_max_steps": 2, "n_critic_updates": 1, "batch_size": 8})
    words = speed.parts_side("jax/CartPole-v1", 2, 4, method).variants[0].words
    monkeypatch.setattr(sys, "argv", [*words, "--total-timesteps", "8"])
    script = peer("trust_region")
    said = script.measure(script.read_arguments())
    assert said["total_timesteps"] == 24  # three turns at least
    assert set(said["profile"]) == set(report.UPDATE_PARTS)
    assert said["profile"]["products"] == pytest.approx(3 * said["profile"]["product"])


def test_a_part_or_a_quick_look_does_not_replace_the_whole_results(tmp_path: Path) -> None:
    whole, quick = speed.parse([]), speed.parse(["--quick"])
    assert whole.out == BENCHMARKS.resolve() / "results"
    assert whole.only == list(speed.comparisons())
    assert quick.out == whole.out / "partial"
    assert quick.effort.seconds < whole.effort.seconds
    assert speed.parse(["--only", "halfcheetah"]).out == quick.out
    assert speed.parse(["--quick", "--out", str(tmp_path), "--rounds", "7"]).out == tmp_path


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--only", "chess"]])
def test_a_wrong_command_line_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        speed.parse(words)
    assert leaving.value.code == 2


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_stopping_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, status: int
) -> None:
    def interrupted(comparison: Any, effort: Any, peers: Any, result: Any, say: Any, save: Any) -> None:
        result.sides = example().comparisons[0].sides
        raise stop

    monkeypatch.setattr(speed, "compare", interrupted)
    monkeypatch.setattr(speed.signal, "signal", lambda *_: None)
    assert speed.main(["--only", "halfcheetah", "--out", str(tmp_path)]) == status
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert kept["interrupted"] is True
    assert len(kept["comparisons"][0]["sides"][0]["rounds"]) == 3
    assert "22,000 (20,000 to 24,000)" in (tmp_path / "speed.md").read_text()


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt()], ids=["whole", "stopped"])
def test_a_comparison_measured_again_takes_its_place_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException | None
) -> None:
    names = ("halfcheetah", "trpo", "natural")
    old = example()
    old.comparisons = [report.ComparisonResult(name, f"Title of {name}", 2_000) for name in names]
    report.write(old, tmp_path)
    assert report.read(tmp_path) == old

    def again(comparison: Any, effort: Any, peers: Any, result: Any, say: Any, save: Any) -> None:
        result.sides = example().comparisons[0].sides
        save()
        assert report.read(tmp_path) == old
        if stop:
            raise stop

    monkeypatch.setattr(speed, "compare", again)
    monkeypatch.setattr(speed.signal, "signal", lambda *_: None)
    status = speed.main(["--only", "trpo", "--replace", "--out", str(tmp_path)])
    kept = report.read(tmp_path)
    if stop:
        assert (status, kept) == (130, old)
        return
    assert [one.name for one in kept.comparisons] == list(names)
    assert kept.comparisons[1].sides == example().comparisons[0].sides
    assert kept.comparisons[1].measured.startswith("20")
    assert (kept.comparisons[0], kept.date) == (old.comparisons[0], old.date)
    page = (tmp_path / "speed.md").read_text()
    assert page.count("Measured 20") == 1


@pytest.mark.parametrize("words", [["--replace"], ["--replace", "--quick", "--only", "trpo"]])
def test_only_part_of_the_results_can_be_replaced(words: list[str], tmp_path: Path) -> None:
    for out in ([], ["--out", str(tmp_path)]):
        with pytest.raises(SystemExit) as leaving:
            speed.parse([*words, *out])
        assert leaving.value.code == 2


def test_results_that_are_not_there_cannot_be_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.parse(["--replace", "--only", "trpo", "--out", str(tmp_path)])
    assert "there are no results in" in capsys.readouterr().err


def test_the_operations_of_an_update_are_those_of_its_products() -> None:
    script = peer("arithmetic")
    # One layer of one unit, one observation, one action, one row: every weight is one product of 2 operations.
    # DDPG: target 2 + 3; critic 3 + 3 + 1; policy 2 + 3, the action's gradient 2, 2 + 1.
    assert script.update_flops("ddpg", 1, 1, (1,), 1) == 2 * (5 + 7 + 10)
    # TD3: target 2 + 6; critics 6 + 6 + 2; half of the policy's 10.
    assert script.update_flops("td3", 1, 1, (1,), 1) == 2 * (8 + 14 + 5)
    # SAC: target 3 + 6; critics 6 + 6 + 2; policy 3 + 6, the action's gradient 4, 3 + 2.
    assert script.update_flops("sac", 1, 1, (1,), 1) == 2 * (9 + 14 + 18)


def test_an_update_of_sac_on_halfcheetah_has_six_tenths_of_a_gigaflop() -> None:
    script = peer("arithmetic")
    flops = script.update_flops("sac", 17, 6, (256, 256), 256)
    assert flops == pytest.approx(0.59e9, rel=0.03)
    # With all gradients of inputs, also those of the observations that nobody needs, it is three times forwards.
    policy, critic = 17 * 256 + 256 * 256 + 256 * 12, 23 * 256 + 256 * 256 + 256
    everything = 2 * 256 * ((policy + 2 * critic) + 6 * critic + (3 * policy + 4 * critic))
    needless = 2 * 256 * (2 * 23 * 256 + 2 * 17 * 256 + 17 * 256)
    assert flops == everything - needless
    assert script.steps_per_second(211e9, flops, 1.0) == pytest.approx(365.6, abs=0.1)
    assert script.steps_per_second(211e9, flops, 20.0) == pytest.approx(18.28, abs=0.01)


@pytest.mark.parametrize("algorithm", ["sac", "td3", "ddpg"])
def test_the_gradients_of_the_losses_have_as_many_operations(algorithm: str) -> None:
    script = peer("arithmetic")
    work, sizes, rows = script.WORK[algorithm], (17, 6, (256, 256)), 256

    def weights(*layers: int) -> list[jax.Array]:
        return [jnp.zeros(pair) for pair in pairwise(layers)]

    def forward(layers: list[jax.Array], x: jax.Array) -> jax.Array:
        for layer in layers[:-1]:
            x = jnp.maximum(x @ layer, 0.0)
        return x @ layers[-1]

    def value(critic: list[jax.Array], observations: jax.Array, actions: jax.Array) -> jax.Array:
        # The action's columns apart, so that its gradient needs no other.
        first = observations @ critic[0][:17] + actions @ critic[0][17:]
        return forward(critic[1:], jnp.maximum(first, 0.0))

    policy, critics = weights(17, 256, 256, 6 * work.outputs), [weights(23, 256, 256, 1)] * work.n_critics
    observations, actions = jnp.zeros((rows, 17)), jnp.zeros((rows, 6))

    def act(policy: list[jax.Array], observations: jax.Array) -> jax.Array:
        return forward(policy, observations).reshape(rows, 6, -1).sum(-1)

    def regress(critics: Any, policy: Any) -> Any:
        following = act(policy, observations)
        target = min_of([value(one, observations, following) for one in critics])

        def loss(critics: Any) -> Any:
            return sum(jnp.mean((value(one, observations, actions) - target) ** 2) for one in critics)

        return jax.grad(loss)(critics)

    def climb(policy: Any, critics: Any) -> Any:
        def loss(policy: Any) -> Any:
            chosen = act(policy, observations)
            return -jnp.mean(min_of([value(one, observations, chosen) for one in critics[: work.n_climbed]]))

        return jax.grad(loss)(policy)

    def min_of(values: list[jax.Array]) -> jax.Array:
        return values[0] if len(values) == 1 else jnp.minimum(*values)

    def products(function: Any, *arguments: Any) -> int:
        total = 0
        for equation in jax.make_jaxpr(function)(*arguments).eqns:
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                shape = equation.invars[0].aval.shape
                total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
        return total

    flops = products(regress, critics, policy) + products(climb, policy, critics) / work.policy_delay
    assert script.update_flops(algorithm, *sizes, rows) == flops


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_rate_is_that_of_what_follows_the_random_steps(seeds: int, tmp_path: Path) -> None:
    measured = replace(measurement(200.0 * seeds), total_timesteps=5_000)  # 25 s
    folder = tmp_path / ("seed_0" if seeds > 1 else "")
    folder.mkdir(exist_ok=True)
    with pytest.raises(harness.Failed, match="its log cannot be read"):
        harness.without_random_steps(measured, 900, tmp_path, seeds)
    lines = [(500, 5_000.0 * seeds), (1_000, 500.0 * seeds), (5_000, 200.0 * seeds)]  # 0.1 s, 2 s, 25 s
    log = "".join(json.dumps({"time/total_timesteps": n, "time/steps_per_second": x}) + "\n" for n, x in lines)
    (folder / "metrics.jsonl").write_text(log)
    found = harness.without_random_steps(measured, 900, tmp_path, seeds)
    assert found == replace(measured, steps_per_second=pytest.approx(seeds * 4_000 / 23.0))
    assert harness.without_random_steps(measured, 0, tmp_path, seeds) == measured
    with pytest.raises(harness.Failed, match="of its 5000 steps none follows the random ones"):
        harness.without_random_steps(measured, 4_900, tmp_path, seeds)


def test_random_steps_come_on_top_for_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "without_random_steps", lambda measured, *about: measured)
    log = tmp_path / "log"
    side = harness.Side("a", "A", (fake_variant("", 100.0, log),), trial_steps=40, seeds=4, random_steps=30)
    result = report.ComparisonResult("fake", "Fake", 8)
    harness.compare(
        harness.Comparison("fake", "Fake", 8, (side,)),
        harness.Effort(2.0, 1),
        harness.Peers(lambda words: None),
        result,
        lambda words: None,
        lambda: None,
    )
    # 10 of each seed in the trial, and at 100 steps/s 2 s are 50 of each beside the random ones.
    assert log.read_text().splitlines() == [" 40", " 80"]
    assert result.sides[0].rounds[0].total_timesteps == 4 * 80


def test_the_share_of_the_arithmetic_limit_is_taken_within_each_round() -> None:
    rounds = [{"gflop": 0.577, "gflop_per_second": rate} for rate in (200.0, 211.0, 240.0)]
    assert report.limit_line([180.0, 220.0, 300.0], [360.0, 400.0, 500.0], rounds) == (
        "Jumar reaches 55% (50% to 60%) of the arithmetic limit, 400 (360 to 500) steps/s: the products of one update are "
        "0.577 GFLOP, and a square product reaches 211 GFLOP/s."
    )


def test_the_limit_is_a_line_below_the_table() -> None:
    result = example().comparisons[0]
    limit = report.SideResult("limit", "arithmetic limit", {"": measurement(40_000)}, {}, "")
    limit.rounds = [replace(measurement(40_000), profile={"gflop": 0.5, "gflop_per_second": 20_000.0})] * 3
    page = report.to_markdown(replace(example(), comparisons=[replace(result, sides=[*result.sides, limit])]))
    assert "| arithmetic limit" not in page
    assert "Jumar reaches 55% (50% to 60%) of the arithmetic limit, 40,000 (40,000 to 40,000) steps/s" in page
    assert "arithmetic limit" not in report.to_markdown(example())


REPLAYED = off_policy.off_policy(("sac", "td3", "ddpg"))


@pytest.mark.parametrize("comparison", REPLAYED.values(), ids=lambda c: c.name)
def test_all_sides_of_an_off_policy_comparison_are_given_the_same_work(comparison: Any) -> None:
    jumar, *others = comparison.sides
    work = off_policy.WORKLOADS[comparison.name]
    words = jumar.variants[0].words
    assert words[:5] == ("-m", "jumar", "train", work.algorithm, work.env)
    ours = options(words)
    assert (ours["--preset"], ours["--eval-every"], ours["--checkpoint-every"]) == ("none", "0", "0")
    assert (int(ours["--learning-starts"]), int(ours.get("--n-seeds", "1"))) == (jumar.random_steps, jumar.seeds)
    assert int(ours["--train-freq"]) * jumar.seeds == comparison.rollout
    assert int(ours["--train-freq"]) % int(ours["--n-envs"]) == 0
    for side in (jumar, *others):
        assert side.trial_steps % comparison.rollout == 0
        for variant in side.variants:
            theirs = options(variant.words)
            common = ["--net-arch", "--batch-size", "--train-freq", "--gradient-steps"]
            if side.name != "limit":
                common += ["--n-envs", "--learning-starts", "--buffer-size"]
            assert {name: theirs[name] for name in common} == {name: ours[name] for name in common}
            assert side is jumar or theirs["--algorithm"] == work.algorithm
            assert side is jumar or Path(variant.words[0]).exists()
            if "--env" in theirs:
                assert work.env.endswith("/" + theirs["--env"])
                assert theirs.get("--n-seeds", "1") == ours.get("--n-seeds", "1")
            if "--vector" in theirs:
                assert (theirs["--vector"] == "envpool") == work.env.startswith("envpool/")
    assert [side.name for side in others] == (
        ["rejax", "limit"] if work.env.startswith("jax/") else ["sb3", "sbx", "limit"]
    )


@pytest.mark.parametrize("comparison", off_policy.off_policy(ALGORITHMS).values(), ids=lambda c: c.name)
def test_jumar_knows_the_settings_of_an_off_policy_comparison(comparison: Any) -> None:
    request = request_of(comparison.sides[0].variants[0].words)
    assert (request.eval_every, request.checkpoint_every, request.preset) == (0, 0, "none")
    assert (request.n_seeds or 1) == comparison.sides[0].seeds


def test_off_policy_algorithms_are_compared_once_they_are_registered() -> None:
    assert off_policy.off_policy(("ppo",)) == {}
    assert set(off_policy.off_policy(("ppo", "td3"))) == {"td3", "td3-seeds"}


@pytest.mark.parametrize("name", ["sac-8", "td3-seeds", "ddpg"])
def test_the_off_policy_scripts_take_their_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison, work = REPLAYED[name], off_policy.WORKLOADS[name]
    for side in comparison.sides[1:]:
        script, *words = side.variants[-1].words
        monkeypatch.setattr(sys, "argv", [script, *words, "--total-timesteps", "100"])
        arguments = peer(Path(script).stem).read_arguments()
        assert arguments.algorithm == work.algorithm
        assert (arguments.train_freq, arguments.gradient_steps) == (work.train_freq, work.gradient_steps)
        assert arguments.total_timesteps == 100


def test_the_peers_count_rounds_in_steps_of_each_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    script = peer("sb3_off_policy")
    words = REPLAYED["sac-8"].sides[1].variants[1].words
    monkeypatch.setattr(sys, "argv", [*words, "--total-timesteps", "100"])
    assert script.settings(script.read_arguments()) == {
        "learning_starts": 1_000,
        "batch_size": 256,
        "gradient_steps": 8,
        "buffer_size": 1_000_000,
        "seed": 0,
        "train_freq": 1,
        "policy_kwargs": {"net_arch": [256, 256]},
        "device": "cpu",
    }
    monkeypatch.setattr(sys, "argv", [*words, "--total-timesteps", "100", "--train-freq", "4"])
    with pytest.raises(SystemExit):
        script.read_arguments()


def test_rejax_does_whole_rounds_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    script = peer("rejax_off_policy")
    for name, expected in (("sac-seeds", (36, 3)), ("td3-seeds", (36, 2))):
        monkeypatch.setattr(sys, "argv", [*REPLAYED[name].sides[1].variants[0].words, "--total-timesteps", "2000"])
        assert script.rounds(script.read_arguments()) == expected  # 1,000 steps are 16 rounds of 64, and 20 follow


def test_a_round_s_time_is_that_of_the_rounds_that_came_on_top() -> None:
    case = replay.Case("seeds", "jax/Pendulum-v1", n_envs=8, seeds=4)
    first = replace(measurement(48_000.0), total_timesteps=12_000)  # of one seed: 48,000 of all take 1 s
    whole = replace(measurement(4_800.0), total_timesteps=13_200)  # 52,800 take 11 s
    assert replay.training_seconds(first, 4) == 1.0
    assert replay.round_ms(first, whole, case) == pytest.approx(1e3 * 10.0 / 150)
    with pytest.raises(harness.Failed, match=r"0 rounds more took 0\.00 s more"):
        replay.round_ms(first, first, case)


def test_both_capacities_differ_in_nothing_else_and_the_small_one_is_full() -> None:
    for case in replay.CASES.values():
        small, large = (options(case.words(capacity)) for capacity in (replay.SMALL, replay.LARGE))
        assert (small.pop("--buffer-size"), large.pop("--buffer-size")) == ("10000", "1000000")
        assert small == large
        assert int(small["--learning-starts"]) > replay.SMALL
        assert small["--n-envs"] == small["--train-freq"] == small["--gradient-steps"]
        assert case.rounds(2_000) * case.n_envs == 2_000
        assert replay.RANDOM_STEPS % case.n_envs == 0


def test_the_table_of_the_replay_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(command: list[str], scratch: Path, limit_s: float) -> Any:
        said = options(tuple(command))
        if "jax/Pendulum-v1" in command:
            raise harness.Failed("no room")
        steps, envs = int(said["--total-timesteps"]), int(said["--n-envs"])
        ms = 5.0 if said["--buffer-size"] == "10000" else 6.0
        seconds = 1.0 + 1e-3 * ms * (steps - 12_000) / envs
        return replace(measurement(steps / seconds), total_timesteps=steps)

    monkeypatch.setattr(replay, "measure", measured)
    assert replay.main(["--only", "pool-8", "compiled", "--rounds", "2", "--out", str(tmp_path)]) == 1
    lines = (tmp_path / "replay.md").read_text().splitlines()
    assert lines[-2:] == [
        "| HalfCheetah-v5 of EnvPool, 8 environments | 5.00 | 6.00 | 1.20 (1.20 to 1.20) | 300 / 300 |",
        "| Pendulum-v1 compiled, 1 environment | no room | | | |",
    ]
