"""The page itself: runs as HTML that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jumar._version import __version__
from jumar.web import parts
from jumar.web.charts import Chart, Groups, Section, flight_sections, merged_words, points_for, return_charts
from jumar.web.elements import Markup, data_json, element, together
from jumar.web.gathering import Gathering
from jumar.web.stills import look, still
from jumar.web.videos import find_videos

MARK = b'<!DOCTYPE html>\n<html lang="en">\n<!-- jumar report -->\n'
"""How every page begins, so that a file that is no page is never replaced by one."""
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M1 14L5 9L9 11L15 2' "
    "fill='none' stroke='%230072b2' stroke-width='2.4'/%3E%3C/svg%3E"
)


@dataclass(frozen=True)
class Page:
    """A page: its parts as HTML by name, and its curves as data."""

    title: str
    sections: dict[str, Markup]
    """In their order."""
    data: dict[str, Any]

    @property
    def shape(self) -> str:
        """What stays the same while curves only grow: which charts there are, and of what curves."""
        charts = [
            [one["id"], one["log"], [[s["label"], s["kind"], "low" in s] for s in one["series"]]]
            for one in self.data["charts"]
        ]
        return hashlib.sha256(repr([charts, self.data["groups"]]).encode("utf-8", "replace")).hexdigest()[:16]

    def html(self, *, version: int | None = None) -> bytes:
        """Return the whole page.

        Args:
            version: of a page that is served and asks for changes; ``None`` for a file.
        """
        live = version is not None
        style, script = asset("page.css"), asset("page.js")
        about = {**self.data, "shape": self.shape, "version": version}
        body = [
            element("a", "Skip to the curves", href="#returns", class_="skip"),
            element(
                "main", *(element("section", part, id=name) for name, part in self.sections.items() if part), id="main"
            ),
            element("footer", f"Made by Jumar {__version__}."),
            element("script", Markup(data_json(about)), type="application/json", id="data"),
            element("script", Markup(script)),
        ]
        head = [
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=policy(live=live)),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="referrer", content="no-referrer"),
            element("meta", name="generator", content=f"Jumar {__version__}"),
            element("link", rel="icon", href=ICON),
            element("title", self.title),
            element("style", Markup(style)),
        ]
        if live:
            head.append(element("noscript", element("meta", http_equiv="refresh", content="10")))
        inner = together([element("head", *head), "\n", element("body", *body, class_="live" if live else None)])
        return MARK + inner.encode("utf-8", "backslashreplace") + b"\n</html>\n"


def policy(*, live: bool = False) -> str:
    """Return the content security policy: this page's own style and script by their hashes, and data in addresses."""
    sources = {"script": asset("page.js"), "style": asset("page.css")}
    words = [f"{name}-src '{_hash(text)}'" for name, text in sources.items()]
    words += ["img-src data:", "media-src data:", "base-uri 'none'", "form-action 'none'"]
    return "; ".join(["default-src 'none'", *words, *(["connect-src 'self'"] if live else [])])


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def asset(name: str) -> str:
    """Return the style or the script of the page, uPlot's in front."""
    folder = resources.files("jumar.web") / "assets"
    uplot = {"page.css": "uPlot.min.css", "page.js": "uPlot.iife.min.js"}[name]
    texts = [(place / file).read_text(encoding="utf-8") for place, file in ((folder / "uplot", uplot), (folder, name))]
    return "\n".join(texts)


def make_page(gathering: Gathering, *, folder: Path | None = None, live: bool = False, stills: bool = True) -> Page:
    """Return the page about some runs.

    Args:
        gathering: the runs.
        folder: where the page will lie, for links to what is too large for it; ``None`` where it is served.
        live: whether it is served while the runs go on.
        stills: whether it has a picture of each chart, for browsers without JavaScript and for paper.
    """
    groups = Groups(gathering.runs)
    most, all_numbers = points_for(groups)
    returns = return_charts(groups, most) if groups.runs else []
    sections = flight_sections(groups, most, all_numbers=all_numbers)
    charts = [*returns, *(chart for section in sections for chart in section.charts)]
    charts = [chart for chart in charts if chart.series]
    comparison = parts.compared(gathering, groups)
    videos, troubles = find_videos(gathering.runs)
    notes = [*gathering.left_out, *troubles, *parts.notes(gathering, all_numbers=all_numbers)]
    notes += [words] if (words := merged_words(groups.runs, most)) else []
    filled = {
        "top": parts.top(gathering, groups, live=live),
        "legend": _legend(groups),
        "returns": _charts([chart for chart in returns if chart.series], groups, stills=stills),
        "health": parts.health(groups),
        "scores": parts.scores(comparison),
        "record": _sections(sections, stills=stills),
        "videos": parts.videos(videos, folder),
        "evaluations": parts.evaluations(groups),
        "runs": parts.runs_table(groups),
        "settings": parts.settings(groups),
        "machine": parts.machine(groups),
        "notes": parts.notes_list(notes),
        "next": parts.next_steps(gathering, groups),
    }
    table: dict[tuple[int, ...], int] = {}
    data = {
        "charts": [chart.to_json(table) for chart in charts],
        "groups": [parts.shown(name) for name in groups.names],
    }
    data["steps"] = [list(steps) for steps in table]
    return Page(parts.title(gathering, groups), filled, data)


def _legend(groups: Groups) -> Markup:
    """Return a switch for each colour, where there are several."""
    if groups.single or len(groups.names) < 2:
        return Markup("")
    switches = [
        element(
            "button", element("span", class_=f"swatch {look(i)}", aria_hidden="true"), name,
            type="button", data_group=str(i), aria_pressed="true",
        )
        for i, name in enumerate(groups.names)
    ]  # fmt: skip
    return element("div", *switches, class_="legend", role="group", aria_label="Curves that are shown")


def _charts(charts: list[Chart], groups: Groups, *, stills: bool) -> Markup:
    heading = element("h2", "Returns")
    if not charts:
        return together([heading, element("p", "No episode has ended and no evaluation has been logged yet.")])
    names = ""
    if groups.single:
        drawn = [(one.label, one.group) for one in charts[0].series]
        names = element("p", *(_named(name, group) for name, group in drawn), class_="names")
    figures = [_figure(chart, "h3", stills=stills) for chart in charts]
    return together([heading, names, element("div", *figures, class_="charts large")])


def _named(name: str, group: int) -> Markup:
    return together([element("span", class_=f"swatch {look(group)}", aria_hidden="true"), element("span", name)])


def _sections(sections: list[Section], *, stills: bool) -> Markup:
    """Return the flight record: what is looked at first is open, the rest is folded."""
    if not sections:
        return Markup("")
    folded = []
    for i, section in enumerate(sections):
        figures = [_figure(chart, "h4", stills=stills) for chart in section.charts]
        grid = element("div", *figures, class_="charts")
        if section.open:
            folded.append(together([element("h3", section.title), grid]))
        else:
            heading = element(
                "summary", element("h3", section.title), element("span", str(len(section.charts)), class_="count")
            )
            folded.append(element("details", heading, grid, id=f"record-{i}"))
    return together([element("h2", "Flight record"), *folded])


def _figure(chart: Chart, heading: str, *, stills: bool) -> Markup:
    """Return the place of a chart, its heading above and what it shows below."""
    key = element("code", chart.key, class_="key") if chart.key else ""
    summary = element("span", chart.summary, class_="summary")
    return element(
        "figure",
        element(heading, chart.title, key),
        still(chart) if stills else "",
        element("div", class_="plot", id=chart.id, tabindex="0", role="group", aria_label=f"Curve: {chart.title}"),
        element("p", class_="readout"),
        element("figcaption", chart.words, summary),
        class_="large" if chart.large else None,
    )
