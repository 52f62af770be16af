"""Figures of critics and of entropy: what is trained, and what would be exact."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from jumar.figures.drawing import BLACK, BLUE, CYCLE, RED, frame, legend, panels
from jumar.figures.figure import Data, Figure
from jumar.lab.maximum_entropy import maximum_entropy_choice
from jumar.lab.texts import LECTURE
from jumar.report.style import count_steps

# -- maximum entropy ---------------------------------------------------------------------------------------------------

SCORES: Any = np.array([1.0, 2.0, 3.0, 0.5])
WEIGHTS = np.array([0.1, 0.3, 0.7, 2.0, 10.0])


def entropy_weights() -> Data:
    """Compute the best choice among four for several weights of its entropy."""
    return {
        "scores": SCORES,
        "weights": WEIGHTS,
        "probabilities": np.stack([maximum_entropy_choice(SCORES, float(weight)) for weight in WEIGHTS]),
    }


def draw_entropy_weights(data: Data) -> Any:
    """Draw a panel of bars for each weight."""
    figure, axes = panels(len(data["weights"]), 1.75, 2.6, sharey=True)
    for i, (axis, weight, probs) in enumerate(zip(axes, data["weights"], data["probabilities"], strict=True)):
        places = np.arange(len(probs))
        axis.bar(places, probs, color=BLUE, width=0.75)
        for place, prob in zip(places, probs, strict=True):
            axis.text(place, prob + 0.02, f"{prob:.2f}", ha="center", fontsize=7.5)
        frame(axis, rf"$\lambda = {weight:g}$", "score $c$", "probability" if i == 0 else "")
        axis.set_xticks(places, [f"{score:g}" for score in data["scores"]])
        axis.set_ylim(0.0, 1.1)
    return figure


# -- maximum-entropy policies that were trained --------------------------------------------------------------------------

TEMPERATURES = (0.1, 0.3, 1.0)
ACTIONS = np.linspace(-1.0, 1.0, 401)
DRAWN = 4_000
"""Actions that are drawn from each policy."""


def hills(action: Any) -> Any:
    """Return the reward of actions in [-1, 1]: a high and narrow hill on the left, a low and wide one on the right."""
    return np.exp(-(((action + 0.5) / 0.2) ** 2)) + 0.9 * np.exp(-(((action - 0.4) / 0.3) ** 2))


class Hills(gym.Env):
    """A task of one step in which nothing is seen: the reward is :func:`hills` of the action."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take the only step of an episode."""
        return np.zeros(1, np.float32), float(hills(action[0])), True, False, {}


def temperatures(steps: int) -> Data:
    """Train SQL and SAC at three temperatures; return the actions that they draw, and the best density.

    Args:
        steps: environment steps of each training.
    """
    import jumar

    width = ACTIONS[1] - ACTIONS[0]
    exact = np.stack([maximum_entropy_choice(hills(ACTIONS), alpha) for alpha in TEMPERATURES]) / width
    data: dict[str, Any] = {"temperatures": np.array(TEMPERATURES), "actions": ACTIONS, "best_density": exact}
    edges = np.linspace(-1.0, 1.0, 51)
    data["edges"] = edges
    for method in (jumar.SQL, jumar.SAC):
        drawn = np.stack([_drawn(method, alpha, steps) for alpha in TEMPERATURES])
        name = method.algorithm
        data[f"{name}_density"] = np.stack([np.histogram(actions, edges, density=True)[0] for actions in drawn])
        data[f"{name}_mean_reward"] = hills(drawn).mean(-1)
        data[f"{name}_share_left"] = np.mean(drawn < -0.1, axis=-1)
    data["best_mean_reward"] = exact @ hills(ACTIONS) * width
    data["best_share_left"] = exact[:, ACTIONS < -0.1].sum(-1) * width
    return data


def _drawn(method: Any, alpha: float, steps: int) -> np.ndarray:
    agent = method(Hills, seed=0, preset="none", ent_coef=alpha, net_arch=(64, 64), learning_rate=1e-3, batch_size=64)
    agent.learn(total_timesteps=steps)
    actions, _ = agent.predict(np.zeros((DRAWN, 1), np.float32), deterministic=False)
    return actions[:, 0]


def draw_temperatures(data: Data) -> Any:
    """Draw a panel for each temperature: the densities of both methods, and the best one."""
    figure, axes = panels(len(data["temperatures"]), 3.1, 2.9)
    for i, (axis, alpha) in enumerate(zip(axes, data["temperatures"], strict=True)):
        for name, colour, line in (("sql", BLUE, "-"), ("sac", RED, (0, (4, 1)))):
            density = data[f"{name}_density"][i]
            axis.stairs(
                density, data["edges"], color=colour, linestyle=line, linewidth=1.5, label=f"{name.upper()}'s policy"
            )
        axis.plot(
            data["actions"],
            data["best_density"][i],
            color=BLACK,
            linestyle=":",
            linewidth=1.6,
            label=r"$e^{r / \alpha} / Z$",
        )
        frame(axis, rf"$\alpha = {alpha:g}$", "action", "density" if i == 0 else "")
    legend(axes[-1], loc="lower center")
    return figure


# -- overestimation ----------------------------------------------------------------------------------------------------

TASK, SEEDS = "gymnasium/Hopper-v5", 5
QUANTITIES = {
    "train/q_overestimation": "$Q - G$, mean over steps",
    "train/q_mean": "$Q$, mean over the memory",
    "rollout/ep_rew_mean": "return of training episodes",
}


def overestimation(steps: int) -> Data:
    """Train DDPG and TD3 on Hopper; return what their critics promise and what comes of it, by line of the log.

    Args:
        steps: environment steps of each training.

    Raises:
        UsageError: MuJoCo is not installed.
    """
    import jumar

    data: dict[str, Any] = {"methods": ["ddpg", "td3"]}
    for method in (jumar.DDPG, jumar.TD3):
        runs = [_logged(method, seed, steps) for seed in range(SEEDS)]
        data[f"{method.algorithm} steps"] = np.array([line["time/total_timesteps"] for line in runs[0]], float)
        for name in QUANTITIES:
            values = [[line.get(name) for line in run] for run in runs]
            data[f"{method.algorithm} {name}"] = np.array(values, float)  # None is NaN
    return data


def _logged(method: Any, seed: int, steps: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    settings = {"action_noise": "normal:0.1", "learning_starts": min(1_000, steps // 4), "net_arch": (64, 64)}
    agent = method(TASK, seed=seed, preset="none", **settings)
    agent.learn(total_timesteps=steps, callback=lambda metrics: lines.append(dict(metrics)))
    return lines


def draw_overestimation(data: Data) -> Any:
    """Draw the median over the seeds of each quantity, and its range."""
    figure, axes = panels(len(QUANTITIES), 3.1, 2.9)
    with warnings.catch_warnings():  # before the first episode's end nothing is known
        warnings.simplefilter("ignore", RuntimeWarning)
        for axis, (name, text) in zip(axes, QUANTITIES.items(), strict=True):
            for i, method in enumerate(data["methods"]):
                steps, values = data[f"{method} steps"], data[f"{method} {name}"]
                colour, line = CYCLE[1 - i], ("-", "--")[i]
                known = ~np.all(np.isnan(values), axis=0)
                low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
                axis.fill_between(steps[known], low[known], high[known], color=colour, alpha=0.18, linewidth=0)
                middle = np.nanmedian(values, axis=0)
                axis.plot(
                    steps[known], middle[known], color=colour, linestyle=line, linewidth=1.8, label=method.upper()
                )
            frame(axis, text, "environment steps", "")
            count_steps(axis)
    axes[0].axhline(0.0, color=BLACK, linewidth=0.8)
    legend(axes[0], loc="upper left")
    return figure


FIGURES: tuple[Figure, ...] = (
    Figure(
        name="entropy-weights",
        title="the best choice among four, by the weight of its entropy",
        source=f"{LECTURE}, maximum entropy",
        caption="The probabilities that maximise Σ p c - λ Σ p log p for the scores c = 1, 2, 3 and 0.5, exactly: p "
        "∝ exp(c / λ). With λ near 0 the best score is taken alone; with a large λ all are alike.",
        compute=entropy_weights,
        draw=draw_entropy_weights,
    ),
    Figure(
        name="temperatures",
        title="policies of maximum entropy at three temperatures",
        source=f"{LECTURE}, maximum entropy; Haarnoja et al. 2017, Figure 3",
        caption="A task of one step whose reward has a high and narrow hill on the left and a low and wide one on "
        "the right. Dotted: the best density. The policies of SQL and SAC were trained with "
        f"seed 0, two layers of 64 and {{steps}} steps; of each {DRAWN:,} actions were drawn.",
        compute=temperatures,
        draw=draw_temperatures,
        steps=20_000,
    ),
    Figure(
        name="overestimation",
        title="what the critics of DDPG and TD3 promise",
        source=f"{LECTURE}, DDPG and TD3; Fujimoto et al. 2018, Figure 1",
        caption=f"Five seeds of each method on {TASK.partition('/')[2]}, {{steps}} steps, two layers of 64: the "
        "median and the range of what the critic promises above the return that follows, of its values, and of the "
        "returns in training.",
        compute=overestimation,
        draw=draw_overestimation,
        steps=30_000,
    ),
)
