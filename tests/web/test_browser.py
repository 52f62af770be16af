"""The page in a real browser: nothing is refused by its own policy, and it works with and without a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Tab, find
from made_runs import TOTAL, append, make_run, metrics_line, plan_of

from jumar.web import server as server_module
from jumar.web.gathering import Gathering
from jumar.web.page import make_page
from jumar.web.server import Server

BROWSER = find()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None, reason="there is no Chromium here (apt-get install chromium, or JUMAR_CHROMIUM)"
    ),
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    assert BROWSER is not None
    with Tab(BROWSER, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def written(folder: Path, *places: Path) -> str:
    file = folder / "page.html"
    file.write_bytes(make_page(Gathering(places), folder=folder).html())
    return file.as_uri()


def test_a_page_is_drawn_without_complaints_on_all_screens(tab: Tab, tmp_path: Path) -> None:
    hostile = {"info/</script><script>document.title='broken'</script>": 1.0, "train/huge": 1e300}
    run = make_run(tmp_path / "run", more=hostile)
    append(run.metrics, [metrics_line(TOTAL + 1, **{"train/huge": -1e300, "train/mean_kl": 1e-300})])
    address = written(tmp_path, run.path)
    tab.complaints.clear()
    for width, dark in ((1400, False), (400, False), (400, True)):
        tab.look(width, 6000, dark=dark)
        tab.go(address)
        tab.wait(lambda: tab.value("document.querySelectorAll('.uplot canvas').length") >= 6)
        assert tab.value("document.documentElement.scrollWidth") == width  # nothing sticks out
        assert tab.value("[...document.querySelectorAll('.still')].every(x => getComputedStyle(x).display === 'none')")
        tab.value("document.querySelectorAll('details').forEach(x => { x.open = true; })")
        tab.wait(
            lambda: tab.value(
                "document.querySelectorAll('.uplot').length === document.querySelectorAll('.plot').length"
            )
        )
    dark, light = "rgb(17, 21, 27)", "rgb(247, 248, 250)"
    assert tab.value("getComputedStyle(document.body).backgroundColor") == dark
    tab.look(1400)
    assert tab.value("getComputedStyle(document.body).backgroundColor") == light
    assert tab.value("document.title") == "ppo on jax/CartPole-v1, seed 0"
    assert tab.complaints == []


def test_keys_move_along_a_curve_and_buttons_hide_it(tab: Tab, tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed=seed)
        make_run(tmp_path / f"b{seed}", seed=seed, plan=plan_of(clip_range=0.1))
    tab.complaints.clear()
    tab.look(1400, 4000)
    tab.go(written(tmp_path, tmp_path))
    tab.wait(lambda: tab.value("document.querySelectorAll('.uplot').length") > 2)
    readout = "document.querySelector('.plot').parentElement.querySelector('.readout').textContent"
    assert tab.value(readout).startswith("step 10,000 · ppo:clip_range=0.2: 100.0")
    tab.value("document.querySelector('.plot').focus()")
    tab.press("Home")
    tab.wait(lambda: tab.value(readout).startswith("step 1,000 · ppo:clip_range=0.2: 10.0"))
    tab.press("ArrowRight")
    tab.wait(lambda: tab.value(readout).startswith("step 10,000"))
    tab.value("document.querySelector('.legend button').click()")
    assert tab.value("document.querySelector('.legend button').getAttribute('aria-pressed')") == "false"
    tab.press("Home")
    tab.wait(lambda: tab.value(readout) == "step 1,000 · ppo:clip_range=0.1: 10.0")
    assert tab.complaints == []


def test_without_a_script_and_on_paper_there_are_pictures(tab: Tab, tmp_path: Path) -> None:
    address = written(tmp_path, make_run(tmp_path / "run").path)
    tab.complaints.clear()
    shown = "[...document.querySelectorAll('.still')].filter(x => x.getBoundingClientRect().height > 100).length"
    tab.look(400, scripts=False)
    tab.go(address)
    assert tab.value(shown) >= 6
    assert tab.value("document.querySelectorAll('.uplot').length") == 0
    assert tab.value("document.documentElement.scrollWidth") == 400
    tab.look(1000, paper=True)
    tab.go(address)
    assert tab.value(shown) >= 6
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.look(1400)
    assert tab.complaints == []


def test_a_page_that_is_served_grows_with_its_run(tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BETWEEN_LOOKS", 0.0)
    run = make_run(tmp_path / "run", steps=(1000, 2000), evaluations={})
    tab.complaints.clear()
    tab.look(1400, 3000)
    with Server(Gathering([run.path], waits=True)) as server:
        tab.go(server.url)
        tab.wait(lambda: tab.value("document.querySelectorAll('.uplot').length") >= 5)
        tab.value("document.getElementById('all-settings').open = true")
        append(run.metrics, [metrics_line(TOTAL)])
        readout = "document.querySelector('.readout').textContent"
        tab.wait(lambda: tab.value(readout).startswith("step 10,000"))
        tab.wait(lambda: "finished" in tab.value("document.querySelector('.title').textContent"))
        assert tab.value("document.getElementById('all-settings').open")
        plots = tab.value("document.querySelectorAll('.uplot').length")
        append(run.metrics, [metrics_line(TOTAL + 1, **{"train/q_mean": 1.0})])
        tab.wait(lambda: tab.value("document.querySelectorAll('.uplot').length") == plots + 1)
        assert tab.complaints == []
    tab.wait(lambda: "not connected" in tab.value("document.getElementById('connection').textContent"))
