"""The page: what it says, that nothing of a run can break it, and that it stays small."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import TOTAL, append, evaluation_line, make_run, metrics_line, plan_of

from jumar import cli
from jumar.errors import DamagedFile, UsageError
from jumar.report.statistics import mean_curve
from jumar.web import charts, parts, watched
from jumar.web.charts import Groups
from jumar.web.elements import Markup, data_json, element, escaped
from jumar.web.gathering import Gathering
from jumar.web.health import Complaints, symptoms_of
from jumar.web.page import MARK, asset, make_page, policy
from jumar.web.settings_rows import rows
from jumar.web.stills import decades, short_axis, ticks
from jumar.web.titles import arranged

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\x1b[31m\u202e"
ASSETS = Path(cli.__file__).parents[1] / "web" / "assets"


class Elements(HTMLParser):
    """What a browser would find: elements with their attributes, and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def html_of(*places: Path, **options: Any) -> str:
    return make_page(Gathering(places), **options).html().decode()


def data_of(html: str) -> dict[str, Any]:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)[0])


def test_a_page_of_one_run_says_what_it_reached(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", evaluations={1000: 10.0, 5000: 90.0, TOTAL: 70.0})
    html = html_of(run.path)
    page = Elements(html)
    assert not page.open
    text = " ".join(page.texts)
    for words in ("ppo on jax/CartPole-v1, seed 0", "finished", "70.0", "90.0", "step 5,000", f"{TOTAL:,}"):
        assert words in text
    assert f"jumar evaluate {run.path} --best" in text
    assert "The last evaluation, 70.0, is well below the best one, 90.0 at step 5,000" in text
    data = data_of(html)
    returns = data["charts"][0]["series"]
    assert [one["label"] for one in returns] == ["training", "evaluation"]
    assert data["steps"][returns[1]["x"]] == [1000, 5000, TOTAL]
    assert (returns[1]["mean"], returns[1]["low"]) == ([10.0, 90.0, 70.0], [9.0, 89.0, 69.0])
    assert [one["title"] for one in data["charts"][1:5]] == [
        "Entropy",
        "KL divergence",
        "Clip fraction",
        "Explained variance",
    ]


def test_the_policy_of_the_page_allows_its_own_script_and_style_and_nothing_else(tmp_path: Path) -> None:
    html = html_of(make_run(tmp_path / "run").path)
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert (len(script), len(style)) == (1, 1)
    for kind, [text] in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy()
    [allowed] = [
        one["content"] for one in Elements(html).of("meta") if one.get("http-equiv") == "Content-Security-Policy"
    ]
    assert allowed == policy()
    assert "default-src 'none'" in policy()
    assert "unsafe" not in policy(live=True)
    assert "connect-src" not in policy()
    for tag, attributes in Elements(html).found:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))


def test_what_was_fetched_is_what_is_recorded() -> None:
    recorded = re.findall(r"^([0-9a-f]{64})  (\S+)$", (ASSETS / "uplot" / "README.md").read_text(), re.MULTILINE)
    assert len(recorded) == 3
    for digest, name in recorded:
        assert hashlib.sha256((ASSETS / "uplot" / name).read_bytes()).hexdigest() == digest
    assert "</script" not in asset("page.js").lower()
    assert "</style" not in asset("page.css").lower()


def test_nothing_that_comes_from_a_run_becomes_markup(tmp_path: Path) -> None:
    clean = html_of(make_run(tmp_path / "clean", more={"info/x": 1.0, "odd": 2.0}).path)
    place = tmp_path / "<img src=x>\x07\u202e&amp;"
    run = make_run(place / "run", more={f"info/{HOSTILE}": 1.0, HOSTILE: 2.0})
    append(run.metrics, [{"time/total_timesteps": TOTAL + 1, "train/mean_kl": float("inf"), "train/entropy": HOSTILE}])
    with run.metrics.open("ab") as file:
        file.write(b'\xff\xfe{"a"\n' + b"[" * 5000 + b'\n{"time/total_timesteps": 10003, "train/mean_kl": 1e300}\nhalf')
    html = html_of(run.path)
    hostile = Elements(html)
    assert not hostile.open
    kinds = [[tag for tag, _ in Elements(text).found] for text in (clean, html)]
    assert sorted(set(kinds[0])) == sorted(set(kinds[1]))
    assert len(hostile.of("script")) == 2
    assert not any(character in html for character in "\x07\x1b\u202e")
    data = data_of(html)
    assert any("img src=x onerror" in chart["title"] for chart in data["charts"])
    assert "<img src=x>" in " ".join(hostile.texts)


def test_text_is_escaped_and_shortened_and_markup_is_not_escaped_twice() -> None:
    assert escaped("<a b='\"&\n") == "&lt;a b=&#x27;&quot;&amp;\n"
    assert escaped("\x00\x1b\udc80") == "\\x00\\x1b\\udc80"
    assert len(escaped("x" * 10_000)) == 2000
    inner = element("b", "<")
    assert element("p", inner, title='"', hidden=False, open=True) == '<p title="&quot;" open><b>&lt;</b></p>'
    assert escaped(Markup("<br>")) == "<br>"
    encoded = data_json({"a": "</script><!--&\u2028é", "b": [float("nan"), 1.5]})
    assert not set("<>&\u2028é") & set(encoded)
    assert json.loads(encoded) == {"a": "</script><!--&\u2028é", "b": [None, 1.5]}


def test_symptoms_are_told_with_their_steps_and_whether_they_last(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=())
    far = [metrics_line(step, **{"train/mean_kl": 0.5}) for step in range(100, 1600, 100)]
    near = [metrics_line(step) for step in range(1600, TOTAL + 1, 100)]
    append(run.metrics, [*far, *near])
    [watch] = Gathering([run.path]).runs
    [complaint] = watch.complaints.found
    assert (complaint.first, complaint.last, complaint.iterations, complaint.lasting) == (100, 1500, 15, False)
    assert "each update moves the policy far: mean KL 0.5" in html_of(run.path).lower().replace("kl", "KL")
    short = make_run(
        tmp_path / "short", steps=range(9200, TOTAL + 1, 100), more={"train/mean_kl": 0.5}
    )  # nine are too few
    assert "None of the 11 known symptoms" in html_of(short.path)


def test_seeds_are_drawn_with_their_iqm_and_its_interval(tmp_path: Path) -> None:
    means = [[10.0, 50.0], [20.0, 70.0], [30.0, 60.0]]
    for seed, (first, last) in enumerate(means):
        make_run(tmp_path / f"seed{seed}", seed=seed, evaluations={1000: first, TOTAL: last})
    html = html_of(tmp_path)
    chart = data_of(html)["charts"][0]
    assert [one["label"] for one in chart["series"]] == ["seed 0", "seed 1", "seed 2", "all seeds"]
    expected = mean_curve(np.array(means), resamples=charts.RESAMPLES)
    all_seeds = chart["series"][-1]
    for name, values in (("mean", expected.middle), ("low", expected.low), ("high", expected.high)):
        np.testing.assert_allclose(all_seeds[name], values, rtol=1e-4)
    assert "ppo on jax/CartPole-v1, 3 runs" in html


def test_points_that_stand_for_several_evaluations_stand_for_the_same_in_all_runs(tmp_path: Path) -> None:
    """Both runs lie on the diagonal, and so must their IQM, though one is thinned and the other need not be."""
    for seed, last in enumerate((403, 390)):
        steps = range(10, 10 * last + 1, 10)
        make_run(tmp_path / f"seed{seed}", seed=seed, evaluations={step: float(step) for step in steps})
    data = data_of(html_of(tmp_path))
    every = data["charts"][0]["series"][-1]
    np.testing.assert_allclose(every["mean"], np.array(data["steps"][every["x"]]) - 5.0, rtol=1e-5)
    assert every["mean"] == every["low"] == every["high"]
    assert len(every["mean"]) == 195


def test_the_first_of_equal_evaluations_is_the_best(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", evaluations={1000: 9.0, 5000: 90.0, TOTAL: 90.0})
    assert Gathering([run.path]).runs[0].best == (5000, 90.0)
    assert f"jumar evaluate {run.path} --best" in html_of(run.path)


def test_what_to_type_next_is_what_can_be_typed(tmp_path: Path) -> None:
    for seed in range(2):
        lane = make_run(tmp_path / "both" / f"seed_{seed}", seed=seed, steps=(1000, 2000), evaluations={})
        lane.write_config({**plan_of().to_json(), "kind": "seed", "seed": seed})
    html = html_of(tmp_path / "both")
    assert html.count(f"jumar resume {tmp_path}/both<") == 1
    assert f"jumar resume {tmp_path}/both/seed_" not in html
    assert f"jumar resume {tmp_path}/both<" in html_of(tmp_path / "both" / "seed_1")
    own = replace(plan_of(), environment=None, environment_name="Mine")
    html = html_of(make_run(tmp_path / "own", plan=own).path)
    assert "jumar.load(" in html
    assert "jumar evaluate" not in html


def test_methods_are_compared_and_only_what_differs_is_shown_first(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed=seed)
        make_run(tmp_path / f"b{seed}", seed=seed, plan=plan_of(clip_range=0.1), evaluations={TOTAL: 50.0})
    gathering = Gathering([tmp_path])
    assert sorted({run.method for run in gathering.runs}) == ["ppo:clip_range=0.1", "ppo:clip_range=0.2"]
    text = " ".join(Elements(html_of(tmp_path)).texts)
    assert "Probability of improvement" in text
    differing = [row.name for row in rows([run.plan for run in gathering.runs]) if row.differs]
    assert differing == ["clip_range"]
    folded = html_of(tmp_path).index("All settings")
    assert html_of(tmp_path).index("Settings that differ") < folded < html_of(tmp_path).index("gae_lambda")


def test_methods_need_not_have_runs_of_the_same_tasks(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", plan=plan_of("a2c", env="jax/Pendulum-v1"))
    drawn = [chart for chart in data_of(html_of(tmp_path))["charts"] if chart["title"].startswith("Evaluations on")]
    assert [chart["title"] for chart in drawn] == [f"Evaluations on jax/{task}-v1" for task in ("CartPole", "Pendulum")]
    assert [len(chart["series"]) for chart in drawn] == [1, 1]


def test_half_a_run_and_one_that_has_not_begun_are_pages_too(tmp_path: Path) -> None:
    make_run(tmp_path / "half", steps=(1000, 2000), evaluations={})
    assert "stopped, 20 %" in html_of(tmp_path / "half")
    assert "jumar resume" in html_of(tmp_path / "half")
    nothing = make_run(tmp_path / "none", steps=(), evaluations={})
    nothing.metrics.unlink()
    assert "No episode has ended" in html_of(nothing.path)
    assert "2 runs" in html_of(tmp_path)


def test_what_is_no_run_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run at"):
        Gathering([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no run"):
        Gathering([tmp_path / "empty"])
    changed = make_run(tmp_path / "changed")
    changed.config.write_text(changed.config.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(DamagedFile, match="digest"):
        Gathering([changed.path])
    make_run(tmp_path / "sound")
    gathering = Gathering([tmp_path])  # beside others it is left out, and named
    assert len(gathering.runs) == 1
    assert "digest" in gathering.left_out[0]
    piped = make_run(tmp_path / "piped")
    piped.metrics.unlink()
    os.mkfifo(piped.metrics)
    with pytest.raises(DamagedFile, match="a pipe"):
        Gathering([piped.path])


def test_long_logs_make_small_pages_that_say_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=())
    append(run.metrics, [metrics_line(step, **{"train/entropy": step % 7}) for step in range(1, 20_001)])
    html = html_of(run.path)
    assert len(html) < 400_000
    assert "Long logs are drawn in buckets" in html
    [entropy] = [one for one in data_of(html)["charts"] if one["title"] == "Entropy"]
    [series] = entropy["series"]
    assert len(series["mean"]) <= charts.MOST_POINTS
    assert (min(series["low"]), max(series["high"])) == (0.0, 6.0)


def test_many_runs_share_the_budget(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run0", more={f"train/x{i}": 1.0 for i in range(30)})
    [one] = Gathering([run.path]).runs
    few, every = charts.points_for(Groups([one]))
    assert (few, every) == (charts.MOST_POINTS, True)
    many, every = charts.points_for(Groups([one] * 500))
    assert charts.FEWEST_POINTS <= many < few
    assert every


def test_films_are_a_part_of_the_page_or_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    folder = run.path / "videos"
    folder.mkdir()
    (folder / 'a "b".mp4').write_bytes(b"film")
    (folder / "c.gif").write_bytes(b"GIF89a")
    (folder / "no.html").write_bytes(b"<script>")
    (folder / "link.mp4").symlink_to(run.config)
    page = Elements(html_of(run.path))
    assert [one["src"] for one in page.of("video")] == ["data:video/mp4;base64,ZmlsbQ=="]
    assert [one["src"] for one in page.of("img")] == ["data:image/gif;base64,R0lGODlh"]
    assert any("link.mp4 is a link" in text for text in page.texts)
    monkeypatch.setattr("jumar.web.videos.LARGEST", 3)
    linked = Elements(html_of(run.path, folder=tmp_path / "elsewhere"))
    assert not linked.of("video")
    assert "../run/videos/a%20%22b%22.mp4" in [one["href"] for one in linked.of("a")]


def test_numbers_are_arranged_by_subject_and_none_is_lost() -> None:
    names = ["time/total_timesteps", "train/entropy", "train/value_loss", "info/speed", "train/some_new_thing"]
    first, others = arranged(names)
    assert [title.title for title in first] == ["Entropy"]
    named = {section: [title.title for title in titles] for section, titles in others.items()}
    assert named == {"Critic": ["Value loss"], "Logged from info": ["speed"], "Other numbers": ["Some new thing"]}


def test_axes_have_round_numbers() -> None:
    assert ticks(0.0, 10.0, 5) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert ticks(-0.3, 0.3, 3) == [-0.2, 0.0, 0.2]
    assert ticks(1e-15, 2e-15, 2) == [1e-15, 1.5e-15, 2e-15]
    assert ticks(5.0, 5.0, 4) == [5.0]
    assert all(len(ticks(low, high, 4)) <= 6 for low, high in ((-1e300, 1e300), (0.0, 1e-300), (1e15, 1e15 + 4)))
    assert decades(1e-4, 2.0) == [1e-4, 1e-3, 1e-2, 0.1, 1.0]
    assert [short_axis(x) for x in (0.0, 1500.0, 2e6, 0.02, 1e-6)] == ["0", "1.5k", "2M", "0.02", "1e-06"]


def test_the_command_writes_the_page_and_replaces_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    assert cli.main(["report", str(run.path), "--json"]) == 0
    written = Path(json.loads(capsys.readouterr().out)["file"])
    assert written == run.path / "report.html"
    assert written.read_bytes().startswith(MARK)
    assert cli.main(["report", str(run.path)]) == 0
    before = run.config.read_bytes()
    (tmp_path / "mine.html").write_text("<html>")
    os.mkfifo(tmp_path / "pipe.html")
    for out, words in (
        (run.config, "must end in .html"),
        (tmp_path / "mine.html", "is not a report"),
        (tmp_path / "pipe.html", "is not a report"),
        (tmp_path / "none" / "x.html", "there is no folder"),
    ):
        assert cli.main(["report", str(run.path), "--out", str(out)]) == 2
        assert words in capsys.readouterr().err
    assert run.config.read_bytes() == before
    assert cli.main(["report"]) == 2
    assert "RUN is missing" in capsys.readouterr().err


def test_an_evaluation_without_its_returns_is_still_one() -> None:
    assert watched.evaluation({"step": 5, "mean_return": 1.0}) == {
        "step": 5.0, "mean": 1.0, "std": None, "cost": None, "cut": None, "cut_returns": (),
    }  # fmt: skip
    assert watched.evaluation({"step": 5, "mean_return": "1"}) is None
    full = watched.evaluation(evaluation_line(5, 2.0))
    assert full is not None
    assert (full["least"], full["greatest"], full["length"]) == (1.0, 3.0, 15.0)


@pytest.mark.parametrize("high", ["9" * 400, "NaN", '"high"', "[]", "null"])
def test_scales_that_are_none_are_passed_over(high: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(f'{{"about": {{"last": 3, "scales": {{"x": [0, {high}]}}}}}}')
    assert parts._asked(tmp_path, {"x"}) == (10, {})
    (tmp_path / "results.json").write_text('{"about": {"last": 3, "scales": {"x": [0, 2]}}}')
    assert parts._asked(tmp_path, {"x"}) == (3, {"x": (0.0, 2.0)})


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "dpg"])
def test_numbers_that_no_float_holds_show_no_trouble_and_stop_no_page(algorithm: str) -> None:
    names = [
        "train/mean_kl",
        "train/explained_variance",
        "train/clip_fraction",
        "train/cg_residual",
        "train/q_mean",
        "replay/size",
    ]
    complaints = Complaints(symptoms_of(plan_of(algorithm)), "time/total_timesteps")
    complaints.add([{"time/total_timesteps": step, **dict.fromkeys(names, 10**400)} for step in range(1, 30)])
    missing = Complaints(symptoms_of(plan_of(algorithm)), "time/total_timesteps")
    missing.add([{"time/total_timesteps": step, **dict.fromkeys(names)} for step in range(1, 30)])
    assert complaints.found == missing.found
