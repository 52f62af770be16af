"""HTML that cannot be broken by what is put into it: every text is escaped, unless it is made of elements itself."""

from __future__ import annotations

import html
import json
from collections.abc import Container, Iterable, Sequence
from typing import Any

from jumar.runs.files import plain
from jumar.text import printable

LONGEST_WORDS = 2000
"""Characters of a text of foreign origin that are shown."""
LONGEST_LINE = 60
"""Characters of a cell that is not broken into lines."""
VOID = ("br", "meta", "link", "input", "img")
EMPTY_IN_SVG = ("path", "line", "circle", "rect")


class Markup(str):
    """Text that is HTML already. Only :func:`element`, :func:`together` and constants of this package make it."""

    __slots__ = ()


def escaped(text: Any) -> str:
    """Return a text as it may stand in HTML, in an attribute too; control characters, also of direction, are written out."""
    if isinstance(text, Markup):
        return text
    words = str(text)
    words = words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 3] + "..."
    return html.escape(printable(words), quote=True)


def element(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Return an element. An attribute that is ``None`` or false is left out, and ``True`` has no value.

    Texts are shortened to ``LONGEST_WORDS``; what is ``Markup`` is taken as it is, in an attribute too.

    A trailing underscore is dropped from an attribute's name (``class_``), others become hyphens.
    """
    words = [name]
    for key, value in attributes.items():
        label = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(label)
        elif value is not None and value is not False:
            words.append(f'{label}="{escaped(value)}"')
    inner = "".join(map(escaped, children))
    if name in EMPTY_IN_SVG:
        return Markup(f"<{' '.join(words)}/>")
    return Markup(f"<{' '.join(words)}>" + ("" if name in VOID else f"{inner}</{name}>"))


def together(parts: Iterable[Any], between: str = "") -> Markup:
    """Return parts one after another."""
    return Markup(between.join(map(escaped, parts)))


def table(
    caption: str, heading: Sequence[Any], rows: Iterable[Sequence[Any]], numbers: Container[int] = range(1, 99)
) -> Markup:
    """Return a table in a box that scrolls; its first column names the rows, and columns of numbers are set at the right."""
    head = [
        element("th", words, scope="col", class_="number" if i in numbers else None) for i, words in enumerate(heading)
    ]
    body = [
        element(
            "tr", element("th", row[0], scope="row"), *(_cell(cell, i in numbers) for i, cell in enumerate(row[1:], 1))
        )
        for row in rows
    ]
    inner = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element("div", inner, class_="table", tabindex="0", role="region", aria_label=caption)


def _cell(content: Any, is_number: bool) -> Markup:
    kind = "number" if is_number else "long" if len(content) > LONGEST_LINE else None
    return element("td", content, class_=kind)


def data_json(data: Any) -> str:
    """Return data as JSON that may stand in a ``<script>``: no ``<``, ``>`` or ``&`` is in it, and nothing beyond ASCII."""
    text = json.dumps(plain(data, lambda value: None), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
