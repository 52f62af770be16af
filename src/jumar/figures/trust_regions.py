"""Figures of divergences as constraints."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.figures.drawing import BLUE, GREEN, MARKERS, RED, frame, label, panels
from jumar.figures.figure import Data, Figure
from jumar.figures.levels import edge
from jumar.lab.precision import in_double
from jumar.lab.texts import LECTURE
from jumar.policies.distributions import DiagGaussian

# -- Euclidean against manifold ----------------------------------------------------------------------------------------

CENTRES = np.array([[-1.5, 0.35], [-0.4, 0.7], [1.2, 1.3]])
RADIUS, DIVERGENCE = 0.25, 0.1


@in_double
def normal(parameters: jax.Array) -> DiagGaussian:
    r"""Return :math:`N(\mu, \sigma^2)` of parameters ``[..., 2]``, the mean and the deviation."""
    return DiagGaussian(parameters[..., :1], jnp.log(parameters[..., 1:]))


@in_double
@jax.jit
def divergence_of_normals(old: jax.Array, new: jax.Array) -> jax.Array:
    """Return KL(old || new) of parameters ``[2]`` and ``[n, 2]``; infinite where a deviation is not above 0."""
    sound = new[..., 1:] > 1e-9
    kl = normal(jnp.broadcast_to(old, new.shape)).kl(normal(jnp.where(sound, new, 1.0)))
    return jnp.where(sound[..., 0], kl, jnp.inf)


def manifold() -> Data:
    """Compute circles and sets of equal divergence around three normal distributions."""
    angles = np.linspace(0.0, 2.0 * np.pi, 181)
    circle = RADIUS * np.stack([np.cos(angles), np.sin(angles)], -1)
    circles = CENTRES[:, None] + circle
    return {
        "centres": CENTRES,
        "circles": circles,
        "largest_divergences": np.array(
            [np.max(divergence_of_normals(centre, around)) for centre, around in zip(CENTRES, circles, strict=True)]
        ),
        "equal_divergence": np.stack(
            [edge(lambda new, c=centre: divergence_of_normals(c, new), centre, DIVERGENCE, 2.0) for centre in CENTRES]
        ),
    }


def draw_manifold(data: Data) -> Any:
    """Draw the circles on the left, and what is equally far as distributions on the right."""
    figure, axes = panels(2, 4.7, 2.9, sharey=True)
    for axis, name in zip(axes, ("circles", "equal_divergence"), strict=True):
        for i, (centre, around) in enumerate(zip(data["centres"], data[name], strict=True)):
            colour = (RED, BLUE, GREEN)[i]
            axis.fill(*around.T, color=colour, alpha=0.15, linewidth=0)
            axis.plot(*around.T, color=colour, linewidth=1.8, linestyle=("-", "--", "-.")[i])
            axis.plot(*centre, MARKERS[i], color=colour, markersize=6)
            value = data["largest_divergences"][i] if name == "circles" else DIVERGENCE
            text = f"KL up to {value:.2f}" if name == "circles" else f"KL = {value:g}"
            label(axis, (centre[0], around[:, 1].max() + 0.1), text, colour)
        axis.set_aspect("equal")
        axis.set_xlim(-2.1, 2.2)
        axis.set_ylim(0.0, 2.1)
    frame(axes[0], "equally far as parameters", r"mean $\mu$", r"deviation $\sigma$")
    frame(axes[1], "equally far as distributions", r"mean $\mu$", "")
    return figure


FIGURES: tuple[Figure, ...] = (
    Figure(
        name="manifold",
        title="Euclidean balls against balls of the divergence",
        source=f"{LECTURE}, natural gradient",
        caption=f"Three normal distributions in the plane of their parameters. Left: all parameters within {RADIUS}; "
        "what that changes of the distribution differs by a factor of 80. Right: all distributions with KL(old ‖ "
        f"new) up to {DIVERGENCE}, exactly; their size grows with the deviation, and they are not ellipses.",
        compute=manifold,
        draw=draw_manifold,
    ),
)
