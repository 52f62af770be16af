"""A policy that is linear in features of one's own, pi(a|s) proportional to exp(theta . phi(s, a))."""

import tempfile

import jax.numpy as jnp
from jax import Array

import jumar


def phi(state: Array, action: Array) -> Array:
    """Return the features of pushing a cart to the left (0) or to the right (1): what they do is opposite."""
    position, velocity, angle, spin = state
    return jnp.where(action == 1, 1.0, -1.0) * jnp.stack([position, velocity, angle, spin, angle * jnp.abs(spin)])


def main(total_timesteps: int = 40_960) -> float:
    """Train, save, load and evaluate in CartPole; return what the policy reaches."""
    agent = jumar.NPG("jax/CartPole-v1", features=phi, preset="none", n_envs=8, n_steps=256, target_kl=0.05)
    agent.learn(total_timesteps)
    print("theta", agent.actor().parameters["head"]["theta"])
    with tempfile.TemporaryDirectory() as folder:
        agent.save(folder)
        actor = jumar.load_policy(folder, features=phi)  # the file has theta; the function is passed again
    mean, _ = jumar.evaluate_policy(actor, "jax/CartPole-v1", n_eval_episodes=20)
    return float(mean)  # type: ignore[arg-type]


if __name__ == "__main__":
    print(f"mean return {main():.0f}")
