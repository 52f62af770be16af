"""A method of one's own: a trust region that is measured by the Hellinger distance instead of the KL divergence."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

import jumar
from jumar import objectives, solvers
from jumar.algorithms.on_policy.parts import apart, compose
from jumar.algorithms.settings import CriticFitSettings
from jumar.policies.distributions import Categorical
from jumar.settings import setting
from jumar.trajectory import Batch


def hellinger(old: Categorical, new: Categorical, batch: Batch) -> Array:
    """Return 1 - sum_a sqrt(p_a q_a) at each row: the squared Hellinger distance, between 0 and 1."""
    return 1.0 - jnp.sum(jnp.exp(0.5 * (old.log_probs + new.log_probs)), axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HellingerSettings(CriticFitSettings):
    """Settings of the method; all that every method has comes with the base class."""

    radius: float = setting(0.0025, "mean squared Hellinger distance that an update may reach", above=0, below=1)


def hellinger_trpo(settings: HellingerSettings, policy: Any) -> Any:
    """Trust region policy optimization in the Hellinger distance."""
    # Near the old policy the squared distance is a quarter of the divergence, so its Fisher matrix gives the direction, and
    # the length with four times the radius. The line search then measures the distance itself.
    fisher = solvers.MeanKL(solvers.ConjugateGradient(10), damping=0.1)
    step = solvers.Step(fisher, solvers.Boundary(4.0 * settings.radius))
    search = solvers.LineSearch(step, settings.radius)
    solver = apart(settings, policy, search)
    return compose(settings, policy, objectives.Surrogate(), solver, divergence=hellinger)


HellingerTRPO = jumar.method("hellinger-trpo", HellingerSettings, hellinger_trpo)


def main(total_timesteps: int = 61_440) -> float:
    """Train in CartPole, show the flight record now and then, and return what the policy reaches."""
    agent = HellingerTRPO("jax/CartPole-v1", seed=0, n_envs=8, n_steps=256, radius=0.005)

    def show(metrics: dict[str, Any]) -> None:
        if metrics["time/total_timesteps"] % (5 * 2048) == 0:
            names = ("rollout/ep_rew_mean", "train/mean_kl", "train/step_fraction", "train/explained_variance")
            print("  ".join(f"{name} {metrics[name]:.4g}" for name in names))

    agent.learn(total_timesteps, callback=show)
    mean, _ = jumar.evaluate_policy(agent, "jax/CartPole-v1", n_eval_episodes=20)
    return float(mean)  # type: ignore[arg-type]


if __name__ == "__main__":
    print(f"mean return {main():.0f}")
