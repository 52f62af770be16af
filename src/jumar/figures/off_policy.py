"""Figures of what another policy's experience says: how far states move, and what importance weights cost."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jumar.figures.drawing import BLACK, BLUE, CONTOURS, RED, frame, label, legend, look, panels
from jumar.figures.figure import Data, Figure
from jumar.lab import bounds, improvement, variances
from jumar.lab.conservative_iteration import mixture
from jumar.lab.families import table
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, random_mdp
from jumar.lab.texts import LECTURE, NOTES
from jumar.policies.distributions import Categorical

# -- the mismatch bound ------------------------------------------------------------------------------------------------


def mismatch() -> Data:
    """Compute how far states move and what a policy gains, with their bounds, on the way to another policy."""
    mdp, old, new = bounds.mismatch_example()
    steps = 12
    longer = TabularMDP.of(mdp.transitions, mdp.rewards, mdp.initial, mdp.gamma, steps)
    share = np.linspace(0.0, 1.0, 41)

    def at(share: jax.Array) -> tuple[jax.Array, ...]:
        mixed = mixture(old, new, share)
        bound = bounds.mismatch_bounds(mdp, old, mixed)
        return (
            improvement.performance_difference(mdp, old, mixed),
            improvement.surrogate(mdp, old, mixed),
            bound.lower,
            bound.upper,
            bounds.printed_mismatch_bound(mdp, old, mixed),
        )

    gain, promised, lower, upper, printed = in_double(jax.jit(jax.vmap(at)))(share)
    return {
        "time": np.arange(steps),
        "state_shift": in_double(jax.jit(bounds.state_shift, static_argnums=3))(longer, old, new, steps),
        "state_shift_bound": in_double(jax.jit(bounds.state_shift_bound, static_argnums=2))(old, new, steps),
        "share": share,
        "gain": gain,
        "surrogate": promised,
        "lower_bound": lower,
        "upper_bound": upper,
        "printed_bound": printed,
    }


def draw_mismatch(data: Data) -> Any:
    """Draw the shift of the states on the left, and the gain between its bounds on the right."""
    figure, axes = panels(2, 4.7, 3.6)
    time = data["time"]
    axes[0].plot(time, data["state_shift_bound"], "--s", color=RED, markersize=4, linewidth=1.6)
    axes[0].plot(time, data["state_shift"], "-o", color=BLUE, markersize=4, linewidth=1.8)
    axes[0].axhline(2.0, color=BLACK, linewidth=0.9, linestyle=":")
    label(axes[0], (6.0, data["state_shift_bound"][7]), r"$2 t \epsilon$", RED, ha="right", fontsize=11)
    label(axes[0], (9.0, data["state_shift"][9] + 0.25), r"$\sum_s |P'_t(s) - P_t(s)|$", BLUE, fontsize=11)
    label(axes[0], (2.0, 1.88), "never above 2", BLACK)
    frame(axes[0], "how far the states move", "step $t$", "")
    share = data["share"]
    axes[1].fill_between(share, data["lower_bound"], data["upper_bound"], color=CONTOURS, alpha=0.35, linewidth=0)
    lines = (
        ("gain", "true gain"),
        ("surrogate", "surrogate $L$"),
        ("lower_bound", "lower bound"),
        ("printed_bound", "as printed"),
    )
    for i, (name, text) in enumerate(lines):
        axes[1].plot(share, data[name], linewidth=1.8, label=text, **look(i))
    legend(axes[1], loc="lower left")
    frame(axes[1], "what is gained", "share of the new policy", "")
    return figure


# -- importance weights over the horizon -------------------------------------------------------------------------------

HORIZONS = (1, 2, 5, 10, 20, 35, 50)
SHARES = (0.25, 0.5, 1.0)
"""How much of another policy the two mixtures have."""


def importance_weights() -> Data:
    """Compute the variance of products of ratios, and of returns estimated with them, by the number of steps."""
    process = random_mdp(jax.random.PRNGKey(0), n_states=4, n_actions=2, gamma=1.0, horizon=HORIZONS[-1])
    old = table(np.full((4, 2), 0.5))
    other = table(np.array([[0.8, 0.2], [0.3, 0.7], [0.75, 0.25], [0.4, 0.6]]))
    news = [mixture(old, other, share) for share in SHARES]
    varied = in_double(jax.jit(variances.weight_variance))
    moments = in_double(jax.jit(variances.importance_moments, static_argnums=3))
    estimates: dict[str, list[float]] = {"per_step": [], "whole": []}
    for horizon in HORIZONS:
        shorter = TabularMDP(process.transitions, process.rewards, process.initial, 1.0, horizon)
        for name, per_step in (("per_step", True), ("whole", False)):
            estimates[name].append(float(moments(shorter, old, news[1], per_step).variance))
        estimates.setdefault("on_policy", []).append(float(moments(shorter, news[1], news[1], True).variance))
    return {
        "steps": np.arange(1, HORIZONS[-1] + 1),
        "shares": np.array(SHARES),
        "weight_variance": np.stack([varied(process, old, new) for new in news]),
        "mean_kl": np.array([float(np.mean(_divergences(old, new))) for new in news]),
        "horizons": np.array(HORIZONS),
        **{f"return_variance_{name}": np.array(values) for name, values in estimates.items()},
    }


def _divergences(old: Categorical, new: Categorical) -> np.ndarray:
    return np.asarray(in_double(lambda: old.kl(new))())


def draw_importance_weights(data: Data) -> Any:
    """Draw both on logarithmic scales."""
    figure, axes = panels(2, 4.7, 3.6)
    for i, (values, kl) in enumerate(zip(data["weight_variance"], data["mean_kl"], strict=True)):
        axes[0].plot(data["steps"], values, linewidth=1.9, label=f"KL {kl:.3f} a step", **look(i))
    frame(axes[0], r"variance of $\prod_{i \leq t} \pi'(a_i|s_i) / \pi(a_i|s_i)$", "step $t$", "")
    names = {
        "whole": "weights of trajectories",
        "per_step": "weights so far",
        "on_policy": "no weights: own trajectories",
    }
    for i, (name, text) in enumerate(names.items()):
        axes[1].plot(
            data["horizons"], data[f"return_variance_{name}"], marker="os^"[i], markersize=5, linewidth=1.7, label=text,
            **look((1, 0, 2)[i]),
        )  # fmt: skip
    frame(axes[1], "variance of an estimated return", "horizon", "")
    for axis in axes:
        axis.set_yscale("log")
        legend(axis, loc="upper left")
    return figure


FIGURES = (
    Figure(
        name="mismatch",
        title="how far states move, and what that can cost",
        source=f"{LECTURE}, distribution mismatch",
        caption="A process of two states whose second is never left. Left: the distance between the distributions "
        "of states of two policies with a total variation of 0.1, and its bound 2 t ε. Right: with 4 steps and "
        "rewards of 100, the gain on the way to the new policy, which is mixed into the old one. It lies in the "
        "grey band, the mismatch bound with the scale of the advantages. The bound as printed, L - 2 ε T², has no "
        "such scale; from a share of about 0.85 on it is above the gain, so it is false.",
        compute=mismatch,
        draw=draw_mismatch,
    ),
    Figure(
        name="importance-weights",
        title="the variance of importance weights by the number of steps",
        source=f"{NOTES}, Definition 4.6.3",
        caption="A process of 4 states and 2 actions (drawn with seed 0), whose old policy is uniform. Left: the "
        "variance of the product of ratios after t steps, for three new policies: it grows exponentially. Right: "
        "the variance of the return of the second of them, estimated from one trajectory of the old policy. Weights "
        "of the steps so far help; own trajectories would be far better. All is exact.",
        compute=importance_weights,
        draw=draw_importance_weights,
    ),
)
