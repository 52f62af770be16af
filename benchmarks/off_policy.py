"""The comparisons of algorithms with a replay buffer: Jumar, Stable-Baselines3, SBX, rejax and the arithmetic limit."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from harness import PEERS, Comparison, Side, Variant, options
from report import LIMIT

CHEETAH, PENDULUM = (17, 6), (3, 1)
"""Sizes of an observation and of an action."""
TRIAL_UPDATES = 300
"""Some two seconds of updates on two processors."""
JUMAR = ("--eval-every", "0", "--checkpoint-every", "0", "--quiet", "--json")


@dataclass(frozen=True)
class Workload:
    """An algorithm on an environment, and how often it learns.

    Args:
        title: the heading of the table.
        algorithm: ``sac``, ``td3`` or ``ddpg``.
        env: an id with its backend.
        sizes: of an observation and of an action.
        n_envs: environments of each seed.
        train_freq: environment steps of a round, over the environments of a seed.
        gradient_steps: updates of a round.
        buffer_size: steps that the buffer has room for.
        seeds: seeds in one program.
    """

    title: str
    algorithm: str
    env: str
    sizes: tuple[int, int] = CHEETAH
    n_envs: int = 1
    train_freq: int = 1
    gradient_steps: int = 1
    buffer_size: int = 1_000_000
    seeds: int = 1

    learning_starts = 1_000
    batch_size = 256
    net_arch = "256,256"

    @property
    def rollout(self) -> int:
        """Environment steps of one round of all seeds."""
        return self.train_freq * self.seeds

    @property
    def trial_steps(self) -> int:
        """Environment steps of a short trial, whole rounds of all seeds."""
        return max(1, TRIAL_UPDATES // (self.gradient_steps * self.seeds)) * self.rollout

    def update_words(self) -> tuple[str, ...]:
        """Return the words for what is computed in a round."""
        names = ("net_arch", "batch_size", "train_freq", "gradient_steps")
        return options({name: getattr(self, name) for name in names})

    def words(self) -> tuple[str, ...]:
        """Return the words that every library is given; they are Jumar's own."""
        names = ("n_envs", "learning_starts", "buffer_size")
        return (*self.update_words(), *options({name: getattr(self, name) for name in names}))


def jumar_side(work: Workload) -> Side:
    """Jumar's public command; its random steps are not counted."""
    words = ("-m", "jumar", "train", work.algorithm, work.env, "--preset", "none", *work.words(), *JUMAR)
    seeds = ("--n-seeds", str(work.seeds)) if work.seeds > 1 else ()
    return Side(
        "jumar",
        "Jumar",
        (Variant("", (*words, *seeds)),),
        trial_steps=work.trial_steps,
        run_dir=True,
        seeds=work.seeds,
        random_steps=work.learning_starts,
    )


def torch_side(work: Workload, library: str, title: str) -> Side:
    """Stable-Baselines3 or SBX on the same simulator, in the fastest of the ways that it offers on a processor."""
    backend, env = work.env.split("/")
    script = (str(PEERS / "sb3_off_policy.py"), "--library", library, "--algorithm", work.algorithm, "--env", env)
    vector = "envpool" if backend == "envpool" else "dummy"
    variants = tuple(
        Variant(
            f"torch threads: {threads}",
            (*script, *work.words(), "--vector", vector, "--threads", str(threads)),
        )
        for threads in (1, 2)
    )
    return Side(library, title, variants, trial_steps=work.trial_steps, peer=library)


def rejax_side(work: Workload) -> Side:
    """Return rejax on gymnax's environment, one program; the steps of all seeds count."""
    script = (str(PEERS / "rejax_off_policy.py"), "--algorithm", work.algorithm, "--env", work.env.split("/")[1])
    variant = Variant("", (*script, *work.words(), "--n-seeds", str(work.seeds)))
    return Side("rejax", "rejax", (variant,), trial_steps=work.trial_steps, peer="rejax")


def limit_side(work: Workload) -> Side:
    """Return what the products of the updates allow at most."""
    sizes = ("--sizes", *(str(size) for size in work.sizes))
    words = (str(PEERS / "arithmetic.py"), "--algorithm", work.algorithm, *sizes, *work.update_words())
    return Side(LIMIT, "arithmetic limit", (Variant("", words),), trial_steps=work.trial_steps)


def sides(work: Workload) -> tuple[Side, ...]:
    """Return Jumar, its peers and the limit."""
    if work.env.startswith("jax/"):
        peers = (rejax_side(work),)
    else:
        peers = (torch_side(work, "sb3", "Stable-Baselines3"), torch_side(work, "sbx", "SBX"))
    return (jumar_side(work), *peers, limit_side(work))


def seeds(algorithm: str) -> Workload:
    """Return eight seeds of compiled pendulums; the buffer is rejax's, whose draw takes longer with a larger one."""
    return Workload(
        f"{algorithm.upper()}, Pendulum-v1 compiled, 8 seeds of 64 environments, one update a round",
        algorithm,
        "jax/Pendulum-v1",
        PENDULUM,
        n_envs=64,
        train_freq=64,
        buffer_size=131_072,
        seeds=8,
    )


GYMNASIUM, POOL = "gymnasium/HalfCheetah-v5", "envpool/HalfCheetah-v5"
WORKLOADS = {
    "sac": Workload("SAC, HalfCheetah-v5 of Gymnasium, 1 environment", "sac", GYMNASIUM),
    "td3": Workload("TD3, HalfCheetah-v5 of Gymnasium, 1 environment", "td3", GYMNASIUM),
    "ddpg": Workload("DDPG, HalfCheetah-v5 of Gymnasium, 1 environment", "ddpg", GYMNASIUM),
    "sac-pool": Workload("SAC, HalfCheetah-v5 of EnvPool, 1 environment", "sac", POOL),
    "sac-updates-4": Workload("SAC, 4 updates a step, HalfCheetah-v5 of Gymnasium", "sac", GYMNASIUM, gradient_steps=4),
    "sac-updates-20": Workload(
        "SAC, 20 updates a step, HalfCheetah-v5 of Gymnasium", "sac", GYMNASIUM, gradient_steps=20
    ),
    "sac-8": Workload(
        "SAC, HalfCheetah-v5 of EnvPool, 8 environments, 8 updates a round",
        "sac",
        POOL,
        n_envs=8,
        train_freq=8,
        gradient_steps=8,
    ),
    "sac-seeds": seeds("sac"),
    "td3-seeds": seeds("td3"),
}


def off_policy(registered: Container[str]) -> dict[str, Comparison]:
    """Return the comparisons by name, of the algorithms that Jumar has."""
    return {
        name: Comparison(name, work.title, work.rollout, sides(work))
        for name, work in WORKLOADS.items()
        if work.algorithm in registered
    }
