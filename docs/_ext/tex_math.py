r"""TeX formulas as MathML, by latex2mathml, with what it leaves out put right.

What is put right:

- commands it does not know are an error (it would print their names);
- spaces around the names of functions (``\log \pi``), and none after a sign (``-x``) or inside of scripts;
- vertical bars: opening, closing, or between two things;
- ``aligned``, ``\arg\max``, and limits below and above wherever TeX sets them there;
- words: ``V_{old}`` and ``KL(p \| q)`` are set upright, so that formulas in docstrings need no ``\mathrm``;
- what MathML Core (https://www.w3.org/TR/mathml-core/), which browsers implement, does not have: alignment of columns and
  variants of letters as attributes.
"""

from __future__ import annotations

import html
import re
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element

THIN = "0.1667em"
OPENING = set("([{⌊⌈⟨")
CLOSING = set(")]}⌋⌉⟩")
BARS = set("|‖")
BINARY = set("+−±∓×⋅·∗*∘⊙⊗⊕∪∩∖∧∨")
RELATIONS = set("=<>≤≥≠≈≡∼≃∝∈∉⊂⊆→←↦⇒⇔∣≪≫:≔⪅⪆↔⟂∥≻≺⪰⪯")
PUNCTUATION = set(",;")
PLACEHOLDERS = set("⋅·∗*")  # f(·, x): where something is to be filled in
ORDINARY = set("∇∂∞⊤⊥∅∀∃…⋯ℓ!?./")
BIG = set("∑∏∫⋃⋂")
LIMITS = {"max", "min", "sup", "inf", "lim", "arg max", "arg min"}
SCRIPTS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
ACCENTS = {"¯": "¯", "^": "ˆ", "~": "˜"}
ROWS = {"math", "mrow", "mtd", "msqrt", "mstyle", "mpadded", "mphantom"}
LONG = 12
"""How many letters and signs there are in a formula in a line of text that may go on in the next line."""
DOUBLE_STRUCK_ZERO = 0x1D7D8
KEPT = r"\\(?:text[a-z]*|mathrm|mathit|mathsf|mathtt|operatorname\*?|begin|end|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+"
WORD = re.compile(rf"({KEPT})|(?<![A-Za-z])(KL|tr|[A-Za-z]{{3,}})(?![A-Za-z])")


class FormulaError(ValueError):
    """A formula that cannot be converted."""


def mathml(tex: str, display: bool = False) -> str:
    r"""Return a formula as a ``<math>`` element; a long one in a line of text as several.

    Browsers do not break lines inside of formulas, but between them.

    Args:
        tex: What stands between the dollars.
        display: Whether it stands on lines of its own.

    Raises:
        FormulaError: a command is unknown, or braces do not match.
    """
    try:
        root = convert_to_element(_prepared(tex), display="block" if display else "inline")
    except FormulaError:
        raise
    except Exception as error:  # latex2mathml has errors without a text, and others slip through (IndexError)
        raise FormulaError(f"{type(error).__name__} {error}".rstrip()) from error
    _tidy(root, display, scripts=0)
    del root.attrib["xmlns"]  # HTML needs none
    parts = [root] if display else _parts(root)
    return "".join(tostring(part, encoding="unicode") for part in parts)


def _parts(root: Element) -> list[Element]:
    """Return a formula as several, each of which ends where a line may: after a relation, a sign or a comma."""
    [row] = root
    if sum(1 for _ in root.iter("mi")) + sum(1 for _ in root.iter("mo")) < LONG:
        return [root]
    parts, depth = [Element("mrow")], 0
    for child in row:
        parts[-1].append(child)
        text = _text(_core(child))
        depth += (text in OPENING) - (text in CLOSING)
        if depth == 0 and child.tag == "mo" and child.get("form") == "infix" and text not in BARS:
            parts.append(Element("mrow"))
    made = []
    for part in parts:
        if len(part):
            made.append(Element(root.tag, root.attrib))
            made[-1].append(part)
    return made


# -- before: the source ------------------------------------------------------------------------------------------------


def _prepared(tex: str) -> str:
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", tex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
    if depth:
        raise FormulaError("braces do not match")
    if "\\\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"  # as Sphinx does
    tex = re.sub(r"\\(begin|end)\s*\{(?:aligned|split)\}", r"\\\1{align*}", tex)
    tex = re.sub(r"\\arg\s*(?:\\,)?\s*\\(max|min)(?![a-z])", r"\\arg\1", tex)
    tex = re.sub(r"\\operatorname\*?\s*\{arg\\,(max|min)\}", r"\\arg\1", tex)
    tex = re.sub(r"\\,\s*(\\\||\\Vert(?![a-z]))\s*\\,", r"\1 ", tex)  # the spaces around it are set below
    return WORD.sub(lambda found: found[1] or rf"\mathrm{{{found[2]}}}", tex)


# -- after: the elements -----------------------------------------------------------------------------------------------


def _tidy(element: Element, display: bool, scripts: int) -> None:
    """Put right an element and what is in it; ``scripts`` is how deep it lies in scripts."""
    _tidy_itself(element)
    if element.tag in SCRIPTS or element.tag in SCRIPTS.values():
        base, *others = element
        _tidy(base, display, scripts)
        for other in others:
            _tidy(other, False, scripts + 1)
        _place_scripts(element, display)
        return
    if element.tag == "mtable":
        display = _align(element)
    for before, child, after in zip([None, *element], list(element), [*element, None][1:], strict=False):
        if child.tag == "mo" and "mtable" in {getattr(before, "tag", ""), getattr(after, "tag", "")}:
            child.set("stretchy", "true")
    inside = display and element.tag not in ("mfrac", "msqrt", "mroot") and element.get("displaystyle") != "false"
    for child in element:
        _tidy(child, inside, scripts)
    if element.tag in ROWS:
        _join_words(element)
        _group_fenced(element)
        _space(element, scripts)


def _tidy_itself(element: Element) -> None:
    text = html.unescape(element.text or "")
    if text.startswith("\\") or text == "&":
        raise FormulaError(f"{text} is unknown")
    if element.tag == "mo" and text.replace("\u2009", " ") in LIMITS:
        element.tag = "mi"
        element.attrib.pop("movablelimits", None)
    if element.tag == "mi" and text == "~":
        text = "∼"
    if element.tag == "mo" and (re.fullmatch(r"[A-Za-z]{2,}", text) or text in ORDINARY - {"/"}):
        element.tag = "mi"
        element.attrib.clear()
    if element.tag == "mi" and text in OPENING | CLOSING | BARS | BINARY | RELATIONS | PUNCTUATION | BIG:
        element.tag = "mo"
        element.attrib.setdefault("stretchy", "false")
    if element.tag == "mi" and re.fullmatch("[Α-Ω]", text):
        element.set("mathvariant", "normal")
    variant = element.get("mathvariant")
    if variant == "double-struck" and text.isdigit():
        text = "".join(chr(DOUBLE_STRUCK_ZERO + int(digit)) for digit in text)
        del element.attrib["mathvariant"]
    elif element.tag == "mtext" or len(text) != 1:
        element.attrib.pop("mathvariant", None)  # words are upright
    elif variant not in (None, "normal"):
        raise FormulaError(f"{variant} {text} has no character of its own")
    element.text = text or None


def _place_scripts(element: Element, display: bool) -> None:
    """Set limits where TeX does: a browser sets those of sums beside them where it is short of room."""
    base = element[0]
    if element.tag in SCRIPTS and ((base.text or "") in BIG - {"∫"} or (display and _text(base) in LIMITS)):
        element.tag = SCRIPTS[element.tag]
    if element.tag == "mover" and _text(element[1]) in ACCENTS | {"˙": "", "¨": "", "→": ""}:
        element.set("accent", "true")
        accent = element[1]
        accent.text = ACCENTS.get(_text(accent), accent.text)
        accent.set("stretchy", "false")
    for script in element[1:]:
        if _text(script) and not _text(script).strip("′"):
            script.tag = "mo"
            script.attrib.update(lspace="0", rspace="0")


def _align(table: Element) -> bool:
    """Align columns by style; return whether the cells are set like lines of their own."""
    cells = [cell for row in table for cell in row]
    aligned = any(cell.get("columnalign") == "right" for cell in cells)
    table.attrib.pop("columnspacing", None)
    table.set("class", "aligned" if aligned else "cells")
    if aligned:
        table.set("displaystyle", "true")
    for cell in cells:
        side = cell.attrib.pop("columnalign", None)
        if side:
            cell.set("style", f"text-align: {side}")
    return aligned


def _join_words(row: Element) -> None:
    """Make one name of letters that are set upright side by side."""
    joined: list[Element] = []
    for child in row:
        last = joined[-1] if joined else None
        if last is not None and _is_upright(last) and _is_upright(child):
            last.text = _text(last) + _text(child)
        else:
            joined.append(child)
    for child in joined:
        if len(_text(child)) > 1 and child.get("mathvariant") == "normal":
            del child.attrib["mathvariant"]  # the browser's own choice for more than one letter
    row[:] = joined


def _group_fenced(row: Element) -> None:
    """Give the scripts of a large closing parenthesis to all that is in parentheses: alone it would not be large."""
    children: list[Element] = []
    for child in row:
        children.append(child)
        closing = child[0] if child.tag in SCRIPTS else child
        if child is closing or _text(closing) not in CLOSING or not closing.get("minsize"):
            continue
        depth = 0
        for i in range(len(children) - 1, -1, -1):
            text = _text(_core(children[i]))
            depth += (text in CLOSING) - (text in OPENING)
            if depth == 0:
                group = Element("mrow")
                group.extend([*children[i:-1], closing])
                _space(group, 0)
                child[0] = group
                children[i:] = [child]
                break
    row[:] = children


def _is_upright(element: Element) -> bool:
    return element.tag == "mi" and element.get("mathvariant") == "normal" and _text(element).isascii()


def _text(element: Element) -> str:
    return (element.text or "").replace("\u2009", " ")


# -- spaces, as TeX has them between kinds of atoms ----------------------------------------------------------------------


def _kind(element: Element) -> str:
    """Return what kind of atom an element is: its first part's, if it has scripts."""
    text = _text(element)
    if element.tag in SCRIPTS or (element.tag in SCRIPTS.values() and not element.get("accent")):
        return _kind(element[0])
    if element.tag == "mspace":
        return "space"
    if element.tag == "mrow" and len(element) == 1:
        return _kind(element[0]) if element[0].tag == "mi" else "ordinary"
    if element.tag == "mi":
        return "name" if len(text) > 1 and text[0].isalpha() else "ordinary"
    if element.tag == "mo":
        kinds = {
            "open": OPENING, "close": CLOSING, "bar": BARS, "binary": BINARY, "relation": RELATIONS,
            "punctuation": PUNCTUATION, "big": BIG,
        }  # fmt: skip
        return next((kind for kind, those in kinds.items() if text in those), "ordinary")
    return "ordinary"


def _space(row: Element, scripts: int) -> None:
    """Set the spaces in a row, and insert those around names."""
    kinds = _resolved(list(row))
    spaced: list[Element] = []
    before = "start"
    for child, kind in zip(list(row), kinds, strict=True):
        operand = kind in ("ordinary", "name", "big")
        if (before == "name" and operand) or (kind == "name" and before in ("ordinary", "close")):
            spaced.append(Element("mspace", width=THIN))
        _set_spaces(_core(child), kind, scripts)
        spaced.append(child)
        before = kind
    row[:] = spaced


def _resolved(children: list[Element]) -> list[str]:
    """Return the kinds, with bars and signs settled by what stands before and after them."""
    kinds = [_kind(child) for child in children]
    opened: list[str] = []
    before = "start"
    for i, kind in enumerate(kinds):
        if kind == "space":
            continue
        text = _text(_core(children[i]))
        if kind == "bar":
            if text in opened:
                kind = "close"
                opened.remove(text)
            elif before not in ("ordinary", "close") or _is_closed(children[i + 1 :], text):
                kind = "open"
                opened.append(text)
            else:
                kind = "between"
        elif kind == "binary" and before not in ("ordinary", "close"):
            kind = "ordinary" if text in PLACEHOLDERS else "sign"
        kinds[i] = before = kind
    return kinds


def _is_closed(later: list[Element], bar: str) -> bool:
    """Whether there is another bar before the parentheses close in which the first one is."""
    depth = 0
    for child in later:
        text = _text(_core(child))
        depth += (text in OPENING) - (text in CLOSING)
        if depth < 0:
            return False
        if depth == 0 and text == bar:
            return True
    return False


def _core(element: Element) -> Element:
    """Return the operator in an element with scripts, or the element."""
    while len(element) and element.tag in (*SCRIPTS, *SCRIPTS.values()):
        element = element[0]
    return element


def _set_spaces(operator: Element, kind: str, scripts: int) -> None:
    if operator.tag != "mo":
        return
    text = _text(operator)
    if kind in ("open", "close"):
        operator.attrib.update(form="prefix" if kind == "open" else "postfix", lspace="0", rspace="0")
        operator.attrib.setdefault("stretchy", "false")
    elif kind == "between":
        side = "0.08em" if text == "|" or scripts else "0.22em"
        operator.attrib.update(form="infix", lspace=side, rspace=side)
        operator.attrib.setdefault("stretchy", "false")
    elif kind in ("sign", "ordinary"):
        operator.attrib.update(lspace="0", rspace="0")
        if kind == "sign":
            operator.set("form", "prefix")
    elif kind in ("relation", "binary", "punctuation"):
        side = "0.06em" if scripts else {"relation": "0.2778em", "binary": "0.2222em", "punctuation": THIN}[kind]
        operator.attrib.update(form="infix", lspace="0" if kind == "punctuation" else side, rspace=side)
