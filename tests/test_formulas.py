"""Formulas in the pages: TeX as MathML, and nothing in a page from another host."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXTENSIONS = Path(__file__).parents[1] / "docs" / "_ext"

pytest.importorskip("latex2mathml")


@pytest.fixture
def tex_math(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXTENSIONS)
    return importlib.import_module("tex_math")


def plain(markup: str) -> str:
    """A formula without the attributes of its elements."""
    return re.sub(r"<(\w+)[^>]*?(/?)>", r"<\1\2>", markup).removeprefix("<math><mrow>").removesuffix("</mrow></math>")


def attributes(markup: str, text: str) -> dict[str, str]:
    """The attributes of the one element with this text."""
    [found] = re.findall(rf"<\w+([^>]*)>{re.escape(text)}</", markup)
    return dict(re.findall(r'([\w-]+)="([^"]*)"', found))


def texts(markup: str) -> str:
    return "".join(re.findall(r">([^<>]+)<", markup))


@pytest.mark.parametrize(
    ("tex", "elements"),
    [
        ("x^2", "<msup><mi>x</mi><mn>2</mn></msup>"),
        (r"\log x", "<mi>log</mi><mspace/><mi>x</mi>"),
        (r"\log(x)", "<mi>log</mi><mo>(</mo><mi>x</mi><mo>)</mo>"),
        (r"2 \log x", "<mn>2</mn><mspace/><mi>log</mi><mspace/><mi>x</mi>"),
        (r"\tanh^2 u", "<msup><mi>tanh</mi><mn>2</mn></msup><mspace/><mi>u</mi>"),
        (r"\operatorname{clip}(x)", "<mi>clip</mi><mo>(</mo><mi>x</mi><mo>)</mo>"),
        ("clip(x)", "<mrow><mi>clip</mi></mrow><mo>(</mo><mi>x</mi><mo>)</mo>"),
        ("V_{old}", "<msub><mi>V</mi><mrow><mrow><mi>old</mi></mrow></mrow></msub>"),
        (r"\bar Q", "<mover><mi>Q</mi><mo>¯</mo></mover>"),
        (r"\hat g", "<mover><mi>g</mi><mo>ˆ</mo></mover>"),
        (r"\mathbb{E}", "<mi>𝔼</mi>"),
        (r"\mathbb{1}", "<mrow><mn>𝟙</mn></mrow>"),
        (r"a \sim b", "<mi>a</mi><mo>∼</mo><mi>b</mi>"),
        (r"\nabla f'", "<mi>∇</mi><msup><mi>f</mi><mo>′</mo></msup>"),
        (r"\lfloor n \rfloor", "<mo>⌊</mo><mi>n</mi><mo>⌋</mo>"),
        (r"\sum_i x_i", "<munder><mo>∑</mo><mi>i</mi></munder><msub><mi>x</mi><mi>i</mi></msub>"),
        (r"\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
    ],
)
def test_elements(tex_math: Any, tex: str, elements: str) -> None:
    assert plain(tex_math.mathml(tex)) == elements


def test_limits_stand_below_in_a_formula_of_its_own_and_beside_in_a_line(tex_math: Any) -> None:
    for tex in (r"\max_a", r"\arg\max_a", r"\operatorname*{arg\,max}_a"):
        assert "<munder>" in tex_math.mathml(tex, display=True)
        assert "<msub>" in tex_math.mathml(tex)
    assert "<msub>" in tex_math.mathml(r"\frac{\max_a}{2}", display=True)


@pytest.mark.parametrize(
    ("tex", "form", "side"),
    [("-x", "prefix", "0"), ("(-x)", "prefix", "0"), ("= -x", "prefix", "0"), ("a - x", "infix", "0.2222em")],
)
def test_a_minus_is_a_sign_or_between(tex_math: Any, tex: str, form: str, side: str) -> None:
    found = attributes(tex_math.mathml(tex), "−")
    assert (found["form"], found["lspace"], found["rspace"]) == (form, side, side)


def test_what_is_to_be_filled_in_has_no_spaces(tex_math: Any) -> None:
    assert attributes(tex_math.mathml(r"f(\cdot, x)"), "·")["lspace"] == "0"
    assert attributes(tex_math.mathml(r"2 \cdot 3"), "·")["lspace"] == "0.2222em"


@pytest.mark.parametrize(
    ("tex", "forms"),
    [
        (r"\pi(a|s)", ["infix"]),
        (r"\pi(a|s) \pi(b|s)", ["infix", "infix"]),
        ("|x|", ["prefix", "postfix"]),
        ("|x| + |y|", ["prefix", "postfix"] * 2),
        ("E|u + w| + r(u)", ["prefix", "postfix"]),
        (r"\log |x / y|", ["prefix", "postfix"]),
        (r"\lVert x \rVert^2", ["prefix", "postfix"]),
        (r"KL(\pi \| \pi')", ["infix"]),
        (r"KL(\pi \Vert \pi')", ["infix"]),
        (r"KL(\pi \, \| \, \pi')", ["infix"]),
    ],
)
def test_bars_open_close_or_stand_between(tex_math: Any, tex: str, forms: list[str]) -> None:
    found = re.findall(r"<mo([^>]*)>[|‖]</mo>", tex_math.mathml(tex))
    assert [re.findall(r'form="(\w+)"', one)[0] for one in found] == forms


def test_scripts_of_a_large_parenthesis_belong_to_what_it_encloses(tex_math: Any) -> None:
    assert plain(tex_math.mathml(r"\bigl(a\bigr)^T")) == (
        "<msup><mrow><mo>(</mo><mi>a</mi><mo>)</mo></mrow><mi>T</mi></msup>"
    )
    assert attributes(tex_math.mathml(r"\bigl(a\bigr)"), "(")["minsize"] == "1.2em"


def test_matrices_have_large_parentheses(tex_math: Any) -> None:
    found = tex_math.mathml(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}")
    assert attributes(found, "(")["stretchy"] == attributes(found, ")")["stretchy"] == "true"


def test_columns_are_aligned_by_style(tex_math: Any) -> None:
    for tex in (r"\begin{aligned} a &= b \\ &= c \end{aligned}", r"a &= b \\ &= c"):
        found = tex_math.mathml(tex, display=True)
        assert re.findall("text-align: (left|right)", found) == ["right", "left"] * 2
        assert texts(found) == "a=b=c"
    cases = tex_math.mathml(r"\begin{cases} 1 & x > 0 \\ 0 & \text{otherwise} \end{cases}", display=True)
    assert re.findall("text-align: (left|right)", cases) == ["left"] * 4
    assert "columnalign" not in cases


def test_a_long_formula_in_a_line_may_go_on_in_the_next(tex_math: Any) -> None:
    tex = r"J(\pi') - J(\pi) = L(\pi') + o(\|\theta' - \theta\|)"
    parts = tex_math.mathml(tex).split("<math ")[1:]
    assert [texts(part) for part in parts] == ["J(π′)−", "J(π)=", "L(π′)+", "o(‖θ′−θ‖)"]
    assert tex_math.mathml(tex, display=True).count("<math ") == 1


@pytest.mark.parametrize("tex", [r"\unheardof x", r"\frac{1}{2", "a}", r"x^2^3", r"\left( x", r"a & b"])
def test_what_cannot_be_converted_is_an_error(tex_math: Any, tex: str) -> None:
    with pytest.raises(tex_math.FormulaError):
        tex_math.mathml(tex)


def test_pages_have_formulas_without_scripts_and_broken_ones_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = pytest.importorskip("sphinx.application")
    pytest.importorskip("myst_parser")
    monkeypatch.syspath_prepend(EXTENSIONS)
    source = tmp_path / "pages"
    source.mkdir()
    (source / "conf.py").write_text(
        'extensions = ["myst_parser", "jumar_mathml"]\nmyst_enable_extensions = ["dollarmath"]\n'
        'html_math_renderer = "mathml"\nhtml_theme = "basic"\n'
    )
    (source / "index.md").write_text(
        "# Page\n\nBy {eq}`here`, $x^2$, and so on.\n\n$$a = b$$ (here)\n\n```{eval-rst}\n.. math:: c\n```\n\n$\\nonsense$\n"
    )
    warnings = (tmp_path / "warnings").open("w+")
    folders = [str(tmp_path / name) for name in ("out", "doctrees")]
    app = application.Sphinx(str(source), str(source), *folders, "html", status=None, warning=warnings)
    app.build()
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<math ") == 3
    assert 'id="equation-here"' in page
    assert "(1)" in page
    assert re.search(r"</math>,</span></span> and so on\.", page)  # the comma cannot begin a line
    assert not re.search(r"""(src|href)=["'](https?:)?//(?!www\.sphinx-doc)""", page)
    warnings.seek(0)
    said = warnings.read()
    assert "nonsense" in said
    assert "index.md" in said
