"""Figures of PPO's clipped objective."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.figures.drawing import BLACK, BLUE, CONTOURS, RED, frame, label, panels
from jumar.figures.figure import BOOK, SLIDES_TRPO, Data, Figure
from jumar.lab.precision import in_double
from jumar.solvers import objectives

CLIP_RANGE = 0.2
SIGNS = (("positive", 1.0), ("negative", -1.0))

# -- Figure 12.6 ------------------------------------------------------------------------------------------------------


@in_double
def objectives_of(ratio: jax.Array, advantage: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the original, the clamped and the lower-bound objective of ratios ``[n]``."""
    log_probs, zeros, advantages = jnp.log(ratio), jnp.zeros_like(ratio), jnp.full_like(ratio, advantage)
    clamped = jnp.log(jnp.clip(ratio, 1.0 - CLIP_RANGE, 1.0 + CLIP_RANGE))
    return (
        objectives.surrogate(log_probs, zeros, advantages),
        objectives.surrogate(clamped, zeros, advantages),
        objectives.clipped_surrogate(log_probs, zeros, advantages, CLIP_RANGE),
    )


def clamped_objectives() -> Data:
    """Compute the three objectives over the ratio, for an advantage of 1 and of -1."""
    ratio = np.linspace(0.5, 1.5, 101)
    data: dict[str, Any] = {"ratio": ratio}
    for name, advantage in SIGNS:
        original, clamped, bound = objectives_of(ratio, advantage)
        data |= {f"original_{name}": original, f"clamped_{name}": clamped, f"lower_bound_{name}": bound}
    return data


def draw_clamped_objectives(data: Data) -> Any:
    """Draw the three objectives, one above the other, in a panel for each sign of the advantage."""
    figure, axes = panels(2, 4.4, 3.6)
    forms = (("original", BLUE, "--"), ("clamped", RED, "-."), ("lower_bound", BLACK, "-"))
    for axis, (name, advantage) in zip(axes, SIGNS, strict=True):
        frame(axis, rf"$A {'>' if advantage > 0 else '<'} 0$", r"ratio $w = \pi_{\theta'} / \pi_\theta$", "")
        for i, (form, colour, line) in enumerate(forms):
            values = data[f"{form}_{name}"] - advantage + 0.7 * (1 - i)
            axis.plot(data["ratio"], values, color=colour, linestyle=line, linewidth=2)
            axis.plot(1.0, 0.7 * (1 - i), "o", color=BLACK, markersize=5, zorder=4)
            label(axis, 1.54, values[-1], form.replace("_", " "), colour, ha="left")
        for bound in (1.0 - CLIP_RANGE, 1.0 + CLIP_RANGE):
            axis.axvline(bound, color=CONTOURS, linewidth=0.9, linestyle=":")
        axis.set_xlim(0.5, 1.92)
        axis.set_xticks(
            (0.5, 0.8, 1.0, 1.2, 1.5), ("0.5", r"$1 - \epsilon$", "1", r"$1 + \epsilon$", "1.5"), fontsize=8
        )
        axis.set_yticks(())
    return figure


# -- the terms and their gradient --------------------------------------------------------------------------------------


def clip_terms() -> Data:
    """Compute the clipped objective of one row and its derivative in the ratio, for both signs of the advantage."""
    ratio = np.linspace(0.0, 2.0, 202)[1:]  # none of them is at a corner

    def one(ratio: jax.Array, advantage: float) -> jax.Array:
        return objectives.clipped_surrogate(jnp.log(ratio), jnp.zeros_like(ratio), jnp.asarray(advantage), CLIP_RANGE)

    data: dict[str, Any] = {"ratio": ratio}
    for name, advantage in SIGNS:
        both = in_double(jax.jit(jax.vmap(jax.value_and_grad(lambda w, a=advantage: one(w, a)))))
        data[f"objective_{name}"], data[f"slope_{name}"] = both(ratio)
    return data


def draw_clip_terms(data: Data) -> Any:
    """Draw the objective, solid where it has a gradient and dotted where it has none."""
    figure, axes = panels(2, 4.2, 3.2)
    for axis, (name, advantage) in zip(axes, SIGNS, strict=True):
        ratio, values, slopes = data["ratio"], data[f"objective_{name}"], data[f"slope_{name}"]
        axis.plot(ratio, advantage * ratio, color=CONTOURS, linewidth=1.2, linestyle="--")
        flat = slopes == 0.0
        axis.plot(ratio, np.where(flat, np.nan, values), color=BLUE, linewidth=2.4)
        axis.plot(ratio, np.where(flat, values, np.nan), color=RED, linewidth=2.4, linestyle=":")
        axis.plot(1.0, advantage, "o", color=BLACK, markersize=6, zorder=4)
        sign = ">" if advantage > 0 else "<"
        frame(axis, rf"$A {sign} 0$", "ratio $w$", r"$\min(w A, \mathrm{clip}(w)\, A)$" if advantage > 0 else "")
        place = 1.62 if advantage > 0 else 0.4
        label(axis, place, values[np.argmin(abs(ratio - place))] - 0.13, "no gradient", RED)
        place, up = (0.72, "up") if advantage > 0 else (1.28, "down")
        label(axis, place, advantage * place - 0.35, f"gradient\n{up}", BLUE)
        edge = 1.0 + advantage * CLIP_RANGE
        axis.axvline(edge, color=CONTOURS, linewidth=0.9, linestyle=":")
        axis.set_xticks((0, 1, 2))
        axis.text(edge, 1.05 + advantage, rf"$1 {'+' if advantage > 0 else '-'} \epsilon$", ha="center")
    return figure


FIGURES = (
    Figure(
        name="12.6",
        title="original, clamped and lower-bound objective",
        source=f"{BOOK}, Figure 12.6",
        caption="The objective of one action over the ratio of its probabilities, for a positive and a negative advantage: w A, "
        f"clip(w, 1 ± {CLIP_RANGE}) A, and the least of both, which is PPO's. The three are drawn apart; the black points are "
        "where an update begins, w = 1.",
        compute=clamped_objectives,
        draw=draw_clamped_objectives,
    ),
    Figure(
        name="clip-terms",
        title="where the clipped objective has a gradient",
        source=f"{SLIDES_TRPO}, PPO, idea II; Schulman et al. 2017, Figure 1",
        caption=f"PPO's objective of one action with a clip range of {CLIP_RANGE}. It has no gradient (dotted) exactly where a "
        "good action has become more likely by more than the range, or a bad one less likely. A step in the wrong direction is "
        "never clipped: the dashed line w A is followed there.",
        compute=clip_terms,
        draw=draw_clip_terms,
    ),
)
