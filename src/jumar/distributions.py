"""Action distributions: the names of :mod:`jumar.policies.distributions`."""

from jumar.policies.distributions import *  # noqa: F403
