"""Sphinx configuration: ``make docs`` builds the pages from here into ``docs/_build``, without a network."""

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from jumar import __version__

project = "Jumar"
author = "The Jumar authors"
copyright = "2026, The Jumar authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "jumar_charts",
    "jumar_mathml",
    "jumar_tables",
]
exclude_patterns = ["_build"]
templates_path: list[str] = []

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource", "special-members": "__call__"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

smartquotes = False  # two hyphens are two hyphens

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"Jumar {release}"
html_show_sourcelink = False


def keep_colons(_app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep Napoleon from taking the words before a colon for the type of an attribute.

    It looks at the first line that is not empty, which is an empty comment now.
    """
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]
    if lines[2:3] and lines[2].startswith("Alias for field number"):  # what Python says of a named tuple's field
        lines.clear()


def setup(app: Sphinx) -> None:
    """Run before Napoleon, which has the usual priority of 500."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
