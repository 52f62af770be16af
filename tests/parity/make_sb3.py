"""Write what Stable-Baselines3 and sb3-contrib make of some rollouts to ``data/METHOD.npz``, for the tests to repeat.

    .venv/bin/python -c "import sys; sys.path.append('benchmarks'); from harness import install; print(install('sb3', print))"
    benchmarks/.environments/sb3/bin/python tests/parity/make_sb3.py

The first command installs the peers, pinned in ``benchmarks/peers/sb3.txt``. Each case is one update, after so many others:
the rollout as the environments gave it, the parameters and the optimiser's state before and after, and the order of the
rows in every pass. Episodes end by themselves and by a short time limit within the rollout.

The conjugate gradient of sb3-contrib starts at random noise of size 1e-4, so that it has something to divide by where the
gradient is 0. Here it starts at 0, as everywhere else.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

DATA = Path(__file__).parent / "data"
N_ENVS, N_STEPS, NET_ARCH = 4, 32, [16, 16]
SEED = 3
"""Environment ``i`` is reset with ``SEED + i`` at first."""
TIME_LIMITS = {"CartPole-v1": 15, "Pendulum-v1": 20}


class Case(NamedTuple):
    """One update."""

    method: str
    env: str
    before: int
    """How many updates precede it."""
    settings: dict[str, Any]
    """What differs from the method's defaults, by the names that both libraries have."""


EPOCHS = {"batch_size": 32, "n_epochs": 4, "learning_rate": 3e-3, "clip_range": 0.05}
LIMITED = {**EPOCHS, "ent_coef": 0.01, "target_kl": 0.001}
ACTOR_CRITIC = {"n_steps": N_STEPS, "ent_coef": 0.01}
FIT = {"batch_size": 32, "n_critic_updates": 4}
CASES = {
    "ppo, discrete": Case("ppo", "CartPole-v1", 0, EPOCHS),
    "ppo, discrete, later": Case("ppo", "CartPole-v1", 3, EPOCHS),
    "ppo, box, stopped early": Case("ppo", "Pendulum-v1", 0, LIMITED),
    "ppo, box, later, stopped early": Case("ppo", "Pendulum-v1", 3, LIMITED),
    "ppo, clipped values": Case("ppo", "CartPole-v1", 3, {**EPOCHS, "clip_range_vf": 0.05}),
    "a2c, discrete": Case("a2c", "CartPole-v1", 0, ACTOR_CRITIC),
    "a2c, discrete, later": Case("a2c", "CartPole-v1", 5, ACTOR_CRITIC),
    "a2c, box": Case("a2c", "Pendulum-v1", 0, ACTOR_CRITIC),
    "a2c, box, later": Case("a2c", "Pendulum-v1", 5, ACTOR_CRITIC),
    "trpo, discrete": Case("trpo", "CartPole-v1", 0, FIT),
    "trpo, discrete, later": Case("trpo", "CartPole-v1", 3, FIT),
    "trpo, box": Case("trpo", "Pendulum-v1", 0, FIT),
    "trpo, box, later": Case("trpo", "Pendulum-v1", 3, FIT),
}


def make_agent(case: Case) -> Any:
    """Return the peer's agent with its environments."""
    import gymnasium
    from sb3_contrib import TRPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import A2C, PPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.logger import configure  # pyright: ignore[reportMissingImports]

    def make() -> Any:
        return gymnasium.make(case.env, max_episode_steps=TIME_LIMITS[case.env])

    algorithm = {"ppo": PPO, "a2c": A2C, "trpo": TRPO}[case.method]
    settings = {"n_steps": N_STEPS, **case.settings, "policy_kwargs": {"net_arch": NET_ARCH}}
    agent = algorithm("MlpPolicy", make_vec_env(make, N_ENVS), seed=SEED, device="cpu", **settings)
    agent.set_logger(configure(None, []))
    return agent


@contextlib.contextmanager
def stepping_recorded(env: Any) -> Iterator[list[dict[str, np.ndarray]]]:
    """Keep what every step of the environments gave, in the list."""
    rows: list[dict[str, np.ndarray]] = []
    step_wait = env.step_wait

    def recorded() -> Any:
        observations, rewards, ended, infos = step_wait()
        successors = observations.copy()
        for row in np.flatnonzero(ended):
            successors[row] = infos[row]["terminal_observation"]
        truncated = np.array([bool(info.get("TimeLimit.truncated")) for info in infos])
        rows.append(
            {
                "rewards": np.array(rewards, np.float32),
                "terminated": ended & ~truncated,
                "truncated": truncated,
                "successors": successors.astype(np.float32),
            }
        )
        return observations, rewards, ended, infos

    with mock.patch.object(env, "step_wait", recorded):
        yield rows


@contextlib.contextmanager
def orders_recorded() -> Iterator[list[np.ndarray]]:
    """Keep every order of the rows that is drawn, in the list."""
    orders: list[np.ndarray] = []
    permutation = np.random.permutation

    def recorded(n: int) -> np.ndarray:
        orders.append(np.asarray(permutation(n)))
        return orders[-1].copy()

    with mock.patch.object(np.random, "permutation", recorded):
        yield orders


@contextlib.contextmanager
def step_recorded(agent: Any) -> Iterator[dict[str, Any]]:
    """Keep the direction of TRPO's step and how many fractions of it were tried; its conjugate gradient starts at 0."""
    import torch  # pyright: ignore[reportMissingImports]
    from sb3_contrib.trpo import trpo  # pyright: ignore[reportMissingImports]

    step: dict[str, Any] = {}
    solve, calls = trpo.conjugate_gradient_solver, mock.Mock(side_effect=agent.policy.get_distribution)

    def solved(*arguments: Any, **named: Any) -> Any:
        direction = solve(*arguments, **named)
        step["direction"] = direction.detach().numpy().copy()
        return direction

    with (
        mock.patch.object(torch, "randn_like", torch.zeros_like),
        mock.patch.object(trpo, "conjugate_gradient_solver", solved),
        mock.patch.object(agent.policy, "get_distribution", calls),
    ):
        yield step
    step["tries"] = calls.call_count - 2  # before the search the old policy is asked for twice


def parameters_of(agent: Any) -> np.ndarray:
    """Return all parameters as one vector, in the order of ``named_parameters``."""
    return np.concatenate([p.detach().numpy().reshape(-1) for _, p in agent.policy.named_parameters()])


def optimiser_of(agent: Any) -> dict[str, np.ndarray]:
    """Return the optimiser's averages as vectors like the parameters', 0 where it has none yet, and its count of steps."""
    state = agent.policy.optimizer.state
    names = {"exp_avg": "mean", "exp_avg_sq": "square", "square_avg": "square"}
    parameters = [p for _, p in agent.policy.named_parameters()]
    blank = np.zeros(sum(p.numel() for p in parameters), np.float32)
    found = {
        "mean": blank,
        "square": blank,
        "count": np.array(max((int(s["step"]) for s in state.values()), default=0)),
    }
    for name, ours in names.items():
        if any(name in s for s in state.values()):
            parts = [state[p][name].numpy() if p in state else np.zeros(p.numel(), np.float32) for p in parameters]
            found[ours] = np.concatenate([part.reshape(-1) for part in parts])
    return found


def update_of(case: Case) -> dict[str, np.ndarray]:
    """Return everything about one update."""
    agent = make_agent(case)
    buffer = agent.rollout_buffer
    _, callback = agent._setup_learn(10**6, None)
    for _ in range(case.before):
        agent.collect_rollouts(agent.env, callback, buffer, N_STEPS)
        agent.train()
    with stepping_recorded(agent.env) as rows:
        agent.collect_rollouts(agent.env, callback, buffer, N_STEPS)
    discrete = hasattr(agent.action_space, "n")
    rollout = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    rollout |= {
        "observations": buffer.observations.astype(np.float32).copy(),
        "actions": buffer.actions[..., 0].astype(np.int32) if discrete else buffer.actions.astype(np.float32),
        "episode_start": buffer.episode_starts.astype(bool).copy(),
        "log_probs": buffer.log_probs.copy(),
    }
    estimates = {name: getattr(buffer, name).copy() for name in ("values", "advantages", "returns")}
    assert rollout["truncated"].any(), "no time limit in the rollout"
    before, optimiser_before = parameters_of(agent), optimiser_of(agent)
    recorded = step_recorded(agent) if case.method == "trpo" else contextlib.nullcontext({})
    with orders_recorded() as orders, recorded as step:
        agent.train()
    about = {
        "case": case._asdict(),
        "seed": SEED,
        "max_episode_steps": TIME_LIMITS[case.env],
        "settings": {"n_envs": N_ENVS, "n_steps": N_STEPS, **case.settings, "net_arch": NET_ARCH},
        "shapes": {name: list(p.shape) for name, p in agent.policy.named_parameters()},
    }
    told = {"rollout": rollout, "estimates": estimates, "optimiser before": optimiser_before}
    told |= {"optimiser after": optimiser_of(agent), "step": {name: np.asarray(x) for name, x in step.items()}}
    arrays = {f"{group}/{name}": x for group, members in told.items() for name, x in members.items()}
    return {
        "about": np.array(json.dumps(about)),
        "before": before,
        "after": parameters_of(agent),
        "orders": np.stack(orders).astype(np.int16),
        **arrays,
    }


def main() -> None:
    """Make every case."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    DATA.mkdir(exist_ok=True)
    for method in ("ppo", "a2c", "trpo"):
        arrays: dict[str, Any] = {}
        for name, case in CASES.items():
            if case.method == method:
                told = update_of(case)
                arrays |= {f"{name}/{key}": x for key, x in told.items()}
                steps = int(told["optimiser after/count"]) - int(told["optimiser before/count"])
                moved = float(np.linalg.norm(told["after"] - told["before"]))
                print(f"{name}: {len(told['orders'])} orders, {steps} steps, moved by {moved:.4f}", file=sys.stderr)
        np.savez_compressed(DATA / f"{method}.npz", **arrays)


if __name__ == "__main__":
    main()
