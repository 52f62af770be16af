"""What entropy does to a policy: soft Q-learning and SAC in a task of one step, at three temperatures.

python docs/examples/temperatures.py docs/figures/temperatures.svg``.
"""

import sys
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from gymnasium import spaces

import jumar

TEMPERATURES = (0.1, 0.3, 1.0)
ACTIONS = np.linspace(-1.0, 1.0, 401)


def reward(action: Any) -> Any:
    """Two hills: a high and narrow one, and a low and wide one."""
    return np.exp(-(((action + 0.5) / 0.2) ** 2)) + 0.9 * np.exp(-(((action - 0.4) / 0.3) ** 2))


class Hills(gym.Env):
    """One step, nothing to see, and the reward of the action."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take the only step of an episode."""
        return np.zeros(1, np.float32), float(reward(action[0])), True, False, {}


def drawn(method: Any, alpha: float) -> np.ndarray:
    """Train a method at a temperature; return 4,000 actions that its policy draws."""
    agent = method(Hills, seed=0, preset="none", ent_coef=alpha, net_arch=(64, 64), learning_rate=1e-3, batch_size=64)
    agent.learn(total_timesteps=20_000)
    actions, _ = agent.predict(np.zeros((4_000, 1), np.float32), deterministic=False)
    return actions[:, 0]


def main(path: str) -> None:
    """Draw the figure."""
    figure, axes = plt.subplots(1, len(TEMPERATURES), figsize=(9, 2.8), layout="constrained")
    for axis, alpha in zip(axes, TEMPERATURES, strict=True):
        density = np.exp(reward(ACTIONS) / alpha)
        density /= density.sum() * (ACTIONS[1] - ACTIONS[0])
        for name, method, style in (("SQL", jumar.SQL, "#0072b2"), ("SAC", jumar.SAC, "#d55e00")):
            options: Any = {
                "bins": 50,
                "range": (-1, 1),
                "density": True,
                "histtype": "step",
                "label": f"{name}'s policy",
            }
            actions = drawn(method, alpha)
            axis.hist(actions, color=style, **options)
            print(
                f"alpha {alpha}: {name}: mean reward {reward(actions).mean():.3f}, left {np.mean(actions < -0.1):.2f}"
            )
        exact = density * (ACTIONS[1] - ACTIONS[0])
        print(f"alpha {alpha}: exact: {exact @ reward(ACTIONS):.3f}, left {exact[ACTIONS < -0.1].sum():.2f}")
        axis.plot(ACTIONS, density, color="black", linestyle="--", linewidth=1, label=r"$e^{r/\alpha} / Z$")
        axis.set_title(rf"$\alpha = {alpha}$")
        axis.set_xlabel("action")
    axes[0].set_ylabel("density")
    axes[0].legend(frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
