"""Callbacks: the names of :mod:`jumar.training.events`."""

from jumar.training.events import *  # noqa: F403
