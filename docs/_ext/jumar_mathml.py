"""A renderer of mathematics for Sphinx: MathML, made when the pages are built; no scripts, no other host.

A formula that cannot be converted is a warning, which ``make docs`` makes an error.
"""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from tex_math import FormulaError, mathml

logger = logging.getLogger(__name__)


def _markup(node: nodes.Element, display: bool) -> str:
    tex = node.astext()
    try:
        return mathml(tex, display)
    except FormulaError as error:
        logger.warning("formula %r: %s", tex, error, location=node)
        return f"<code>{html.escape(tex)}</code>"


def keep_punctuation(_app: Sphinx, doctree: nodes.document, _name: str) -> None:
    """Give formulas the comma or full stop after them, which must not begin a line."""
    for node in doctree.findall(nodes.math):
        following = node.next_node(descend=False, siblings=True)
        if isinstance(following, nodes.Text):
            text = following.astext()
            signs = text[: len(text) - len(text.lstrip(",.;:!?)"))]
            if signs:
                node["after"] = signs
                following.parent.replace(following, nodes.Text(text[len(signs) :]))


def visit_inline(writer: Any, node: nodes.math) -> None:
    """Write a formula in a line of text."""
    writer.body.append(writer.starttag(node, "span", "", CLASS="math notranslate"))
    before, tag, last = _markup(node, display=False).rpartition("<math ")
    after = html.escape(node.get("after", ""))
    writer.body.append(f'{before}<span class="whole">{tag}{last}{after}</span></span>')
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, with its number if it has a label."""
    writer.body.append(writer.starttag(node, "div", CLASS="math notranslate"))
    writer.body.append(_markup(node, display=True))
    if node.get("number"):
        writer.body.append(f'<span class="eqno">({get_node_equation_number(writer, node)})')
        writer.add_permalink_ref(node, "Link to this equation")
        writer.body.append("</span>")
    writer.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer; ``html_math_renderer`` chooses it."""
    app.connect("doctree-resolved", keep_punctuation)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
