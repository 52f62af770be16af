"""Figures of PPO's clipped objective."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.registry import ALGORITHMS
from jumar.algorithms.update import Learner
from jumar.collecting.host import HostRunner
from jumar.collecting.programs import CompiledRunner
from jumar.collecting.runner import Held
from jumar.envs.sources import source_of
from jumar.figures.drawing import BLACK, BLUE, CONTOURS, GREEN, RED, frame, label, legend, panels
from jumar.figures.figure import Data, Figure
from jumar.lab.precision import in_double
from jumar.lab.texts import BOOK, NATURAL_SLIDES, TRPO_SLIDES
from jumar.policies.policy import make_policy
from jumar.solvers import objectives
from jumar.trajectory import Trajectory, weighted_mean

CLIP_RANGE = 0.2
SIGNS = (("positive", 1.0), ("negative", -1.0))

# -- Figure 12.6 ------------------------------------------------------------------------------------------------------


@in_double
def objectives_of(ratio: Any, advantage: float) -> tuple[jax.Array, jax.Array, jax.Array]:
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
            label(axis, (1.54, values[-1]), form.replace("_", " "), colour, ha="left")
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
        label(axis, (place, values[np.argmin(abs(ratio - place))] - 0.13), "no gradient", RED)
        place, up = (0.72, "up") if advantage > 0 else (1.28, "down")
        label(axis, (place, advantage * place - 0.35), f"gradient\n{up}", BLUE)
        edge = 1.0 + advantage * CLIP_RANGE
        axis.axvline(edge, color=CONTOURS, linewidth=0.9, linestyle=":")
        axis.set_xticks((0, 1, 2))
        axis.text(edge, 1.05 + advantage, rf"$1 {'+' if advantage > 0 else '-'} \epsilon$", ha="center")
    return figure


# -- objectives on the way from one policy to the next --------------------------------------------------------------------

SEED, ROWS = 0, 2048
HOST_TASK, COMPILED_TASK = "gymnasium/Hopper-v5", "jax/Pendulum-v1"
SETTINGS = {
    "n_steps": ROWS,
    "n_envs": 1,
    "batch_size": 64,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "normalize_observations": False,
}


@dataclass(frozen=True)
class _Recording(OnPolicy):
    """An update whose record has the rows that it learnt from and the policy's new parameters."""

    def improve(
        self, learner: Learner, trajectory: Trajectory, remaining: jax.Array, key: jax.Array
    ) -> tuple[Learner, Any]:
        new, record = super().improve(learner, trajectory, remaining, key)
        return new, {**record, "batch": self._prepare(self.batch(learner, trajectory))}


def interpolation() -> Data:
    """Make the first update of PPO; compute objectives and divergence along the line through both policies."""
    task = HOST_TASK if importlib.util.find_spec("mujoco") else COMPILED_TASK
    update, old, new, batch = _first_update(task)
    flat, unravel = ravel_pytree(old)
    change = ravel_pytree(new)[0] - flat
    share = np.linspace(-0.5, 2.5, 61)

    @jax.jit
    def at(share: jax.Array) -> tuple[jax.Array, ...]:
        before = update.policy.evaluate(old, batch)
        distribution = update.policy.evaluate(unravel(flat + share * change), batch)
        log_probs = distribution.log_prob(batch.actions)
        ratio = jnp.exp(objectives.log_ratio(log_probs, batch.log_probs))
        clamped = jnp.log(jnp.clip(ratio, 1.0 - CLIP_RANGE, 1.0 + CLIP_RANGE))
        zeros = jnp.zeros_like(clamped)
        rows = (
            before.kl(distribution),
            objectives.surrogate(log_probs, batch.log_probs, batch.advantages),
            objectives.surrogate(clamped, zeros, batch.advantages),
            objectives.clipped_surrogate(log_probs, batch.log_probs, batch.advantages, CLIP_RANGE),
        )
        return tuple(weighted_mean(x, batch.weights) for x in rows)

    kl, original, clamped, bound = map(np.asarray, jax.lax.map(at, jnp.asarray(share, jnp.float32)))
    return {"task": task, "share": share, "kl": kl, "original": original, "clamped": clamped, "lower_bound": bound}


def _first_update(task: str) -> tuple[OnPolicy, Any, Any, Any]:
    """Return the update of PPO, the policy's parameters before and after its first one, and its rows."""
    settings = ALGORITHMS["ppo"].settings.make(SETTINGS)
    source = source_of(task)
    env: Any = source.make_compiled() if source.compiled else source.make_host(SETTINGS["n_envs"], 0)
    policy = make_policy(env.observation_space, env.action_space, settings)
    update = _Recording(**vars(ALGORITHMS["ppo"].make(settings, policy)))
    if source.compiled:
        runner: Any = CompiledRunner(update, env, source.name, SETTINGS["n_envs"], ROWS, None)
    else:
        runner = HostRunner(update, lambda: env, ROWS)
    first, key = jax.random.split(jax.random.PRNGKey(SEED))
    with contextlib.closing(runner):
        held = Held(update.init(first, SETTINGS["n_envs"]), runner.memory(), runner.init(key))
        old = held.learner.parameters["policy"]
        done = runner.iterate(runner.restart(held, SEED, 0), key[None], np.ones(1, np.float32))
    return update, old, done.held.learner.parameters["policy"], done.record["batch"]


def draw_interpolation(data: Data) -> Any:
    """Draw the objectives and the divergence."""
    figure, [axes] = panels(1, 6.8, 4.0)
    lines = (
        ("original", r"$E[w A]$", GREEN, "--"),
        ("clamped", r"$E[\mathrm{clip}(w) A]$", RED, "-."),
        ("lower_bound", "PPO: mean of the least", BLUE, "-"),
        ("kl", r"$E[KL(\pi_k \| \pi)]$", BLACK, ":"),
    )
    for name, text, colour, line in lines:
        axes.plot(data["share"], data[name], color=colour, linestyle=line, linewidth=2, label=text)
    for place in (0.0, 1.0):
        axes.axvline(place, color=CONTOURS, linewidth=0.9)
    low, high = np.min(data["lower_bound"]), np.max(data["original"][data["share"] <= 2.0])
    axes.set_ylim(max(low, -high) * 1.05, high * 1.25)
    frame(axes, f"first update in {data['task'].partition('/')[2]}", "", "")
    axes.set_xticks((0.0, 1.0, 2.0), (r"$\theta_k$", r"$\theta_{k+1}$", "twice as far"))
    legend(axes, loc="lower center", ncols=2)
    return figure


FIGURES = (
    Figure(
        name="12.6",
        title="original, clamped and lower-bound objective",
        source=f"{BOOK}, Figure 12.6",
        caption="The objective of one action over the ratio of its probabilities, for a positive and a negative "
        f"advantage: w A, clip(w, 1 ± {CLIP_RANGE}) A, and the least of both, which is PPO's. The three are drawn "
        "apart; the black points are where an update begins, w = 1.",
        compute=clamped_objectives,
        draw=draw_clamped_objectives,
    ),
    Figure(
        name="clip-terms",
        title="where the clipped objective has a gradient",
        source=f"{TRPO_SLIDES}, PPO, idea II; Schulman et al. 2017, Figure 1",
        caption=f"PPO's objective of one action with a clip range of {CLIP_RANGE}. It has no gradient (dotted) "
        "exactly where a good action has become more likely by more than the range, or a bad one less likely. A "
        "step in the wrong direction is never clipped: the dashed line w A is followed there.",
        compute=clip_terms,
        draw=draw_clip_terms,
    ),
    Figure(
        name="interpolation",
        title="objectives on the way from one policy to the next",
        source=f"{NATURAL_SLIDES}, the figure of objectives; Schulman et al. 2017, Figure 2",
        caption=f"The first update of PPO: {ROWS:,} steps, 10 passes of Adam with a rate of 3e-4, seed {SEED}, in "
        "Hopper-v5 where MuJoCo is installed, else in Pendulum-v1 (the title says which). On the line from the old "
        "parameters through the new ones: the surrogate, which goes on rising; the clamped one; the mean of the "
        "least of both, which PPO climbs and which is highest near the new policy; and the mean divergence.",
        compute=interpolation,
        draw=draw_interpolation,
    ),
)
