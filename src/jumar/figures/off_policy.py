"""Figures of other policies' experience, of critics and of entropy."""

from __future__ import annotations

from jumar.figures.figure import Figure

FIGURES: tuple[Figure, ...] = ()
