"""Figures of divergences as constraints."""

from __future__ import annotations

from jumar.figures.figure import Figure

FIGURES: tuple[Figure, ...] = ()
