"""Mutants: copies of Jumar with one error each, at which ``jumar verify`` must fail.

    python tests/mutants.py            # all mutants, each against the checks that it should not pass
    python tests/mutants.py NAME...    # some of them
    python tests/mutants.py --whole    # each against all checks: which of them notice it

A check that passes whatever the code does is worth nothing. Each mutant is a change of one place in ``src/jumar``, of the kind
that people have made in this field. The script fails if the code as it is does not pass, if a mutant passes, or if the text
that it changes is not in its file exactly once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "src" / "jumar"


@dataclass(frozen=True)
class Mutant:
    """One error: in ``file`` the text ``old``, which is there exactly once, becomes ``new``."""

    name: str
    file: str
    old: str
    new: str
    checks: tuple[str, ...]
    """The checks, or groups, that are run; at least one must fail."""

    def text(self, source: Path = SOURCE) -> str:
        """Return the file with the error in it. Raises ``SystemExit`` if the text is not there exactly once."""
        text = (source / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise SystemExit(f"{self.name}: the text is {count} times in {self.file}, not once:\n{self.old}")
        return text.replace(self.old, self.new)


GAE_DELTAS = "deltas = rewards + gamma * jnp.where(terminated, 0.0, successor_values) - values"
MUTANTS = (
    Mutant(
        "KL(new || old) for KL(old || new)",
        "solvers/problem.py",
        "return old.kl(new)",
        "return new.kl(old)",
        ("objectives/kl-direction", "gradients/ppo-penalty", "trust-regions/reported-divergence"),
    ),
    Mutant(
        "no gamma in GAE",
        "estimators/advantages.py",
        GAE_DELTAS,
        "deltas = rewards + jnp.where(terminated, 0.0, successor_values) - values",
        ("estimators/gae", "estimators/time-limits", "gradients/ppo"),
    ),
    Mutant(
        "GAE bootstraps at terminations",
        "estimators/advantages.py",
        GAE_DELTAS,
        "deltas = rewards + gamma * successor_values - values",
        ("estimators/terminations",),
    ),
    Mutant(
        "GAE does not bootstrap at time limits",
        "estimators/advantages.py",
        GAE_DELTAS,
        "deltas = rewards + gamma * jnp.where(terminated | truncated, 0.0, successor_values) - values",
        ("estimators/gae", "estimators/time-limits"),
    ),
    Mutant(
        "advantages flow back from the next episode",
        "estimators/advantages.py",
        "decay = gamma * gae_lambda * (1.0 - (terminated | truncated).astype(rewards.dtype))",
        "decay = gamma * gae_lambda * (1.0 - terminated.astype(rewards.dtype))",
        ("estimators/episode-borders",),
    ),
    Mutant(
        "V-trace without its bound",
        "estimators/importance.py",
        "correction = bounded(jnp.minimum(rho_bar, ratio) * delta + jnp.minimum(c_bar, ratio) * carried)",
        "correction = bounded(ratio * delta + jnp.minimum(c_bar, ratio) * carried)",
        ("importance/v-trace-bounds",),
    ),
    Mutant(
        "states are not discounted",
        "estimators/advantages.py",
        "return estimates._replace(weights=estimates.weights * discount)",
        "return estimates",
        ("estimators/discounted-states", "gradients/reinforce"),
    ),
    Mutant(
        "the clip drops the wrong rows",
        "solvers/objectives.py",
        "return jnp.minimum(ratio * advantages, jnp.clip(",
        "return jnp.maximum(ratio * advantages, jnp.clip(",
        ("objectives/clipping", "gradients/ppo"),
    ),
    Mutant(
        "advantages of the wrong sign in the clip",
        "solvers/objectives.py",
        "return jnp.minimum(ratio * advantages, jnp.clip(",
        "advantages = -advantages\n    return jnp.minimum(ratio * advantages, jnp.clip(",
        ("objectives/clipped", "gradients/ppo"),
    ),
    Mutant(
        "the entropy bonus has the wrong sign",
        "algorithms/on_policy/update.py",
        'return self.ent_coef * means["entropy"] - means["actor_loss"], means',
        'return -self.ent_coef * means["entropy"] - means["actor_loss"], means',
        ("gradients/a2c",),
    ),
    Mutant(
        "the normaliser moves before the optimiser",
        "algorithms/on_policy/update.py",
        "        view = self._view(learner, rollout)\n",
        "        seen = moments_after(learner.observation_moments, trajectory, self.policy.encoder)\n"
        "        view = self._view(learner._replace(observation_moments=seen), rollout)\n",
        ("normaliser",),
    ),
    Mutant(
        "no Jacobian in the squashed log-probability",
        "policies/distributions.py",
        "return self.normal.log_prob(action) - jnp.sum(log_tanh_slope(action) + self._log_half_range, axis=-1)",
        "return self.normal.log_prob(action)",
        ("distributions/squashed-density", "critics/sac"),
    ),
    Mutant(
        "half of the Fisher information of a deviation",
        "policies/distributions.py",
        "return DiagGaussian(tangent.mean * jnp.exp(-2.0 * self.log_std), 2.0 * tangent.log_std)",
        "return DiagGaussian(tangent.mean * jnp.exp(-2.0 * self.log_std), tangent.log_std)",
        ("curvature/closed-forms",),
    ),
    Mutant(
        "the damped Fisher matrix in the length of a step",
        "solvers/natural.py",
        "return Direction(found.x, found.x @ product(found.x), gradient @ found.x, about, ())",
        "return Direction(found.x, found.x @ damped(product, damping)(found.x), gradient @ found.x, about, ())",
        ("curvature/step-length",),
    ),
    Mutant(
        "no factor 2 in the length of a natural step",
        "solvers/fisher.py",
        "return jnp.where(ahead, jnp.sqrt(2.0 * delta / jnp.where(ahead, bend, 1.0)), 0.0)",
        "return jnp.where(ahead, jnp.sqrt(delta / jnp.where(ahead, bend, 1.0)), 0.0)",
        ("curvature/divergence-order", "curvature/step-length", "gradients/npg"),
    ),
    Mutant(
        "conjugate gradients without conjugation",
        "solvers/fisher.py",
        "p = r_new + left / remaining * p",
        "p = r_new",
        ("curvature/conjugate-gradient",),
    ),
    Mutant(
        "the line search does not look at the divergence",
        "solvers/trust_region.py",
        "return near & good_enough(candidate)",
        "return good_enough(candidate)",
        ("trust-regions/trpo-divergence", "trust-regions/restored"),
    ),
    Mutant(
        "a step is taken though none was accepted",
        "solvers/trust_region.py",
        "return PolicyMove(jnp.where(accepted, flat + fraction * change, flat), whole.state, about)",
        "return PolicyMove(flat + jnp.where(accepted, fraction, 1e-3) * change, whole.state, about)",
        ("trust-regions/restored",),
    ),
    Mutant(
        "the penalty shrinks where the divergence is too large",
        "solvers/penalty.py",
        "factor = jnp.where(mean_kl > 1.5 * target, 2.0, jnp.where(mean_kl < target / 1.5, 0.5, 1.0))",
        "factor = jnp.where(mean_kl > 1.5 * target, 0.5, jnp.where(mean_kl < target / 1.5, 2.0, 1.0))",
        ("trust-regions/penalty",),
    ),
    Mutant(
        "the step within the cost limit forgets the room that is left",
        "solvers/dual.py",
        "beta=choose(nothing, radius / jnp.sqrt(share), (c + along * r) / share)",
        "beta=choose(nothing, radius / jnp.sqrt(share), along * r / share)",
        ("gradients/cpo",),
    ),
    Mutant(
        "the largest of the critics in the place of the least",
        "critics/ensemble.py",
        "return jnp.min(values, axis=0)",
        "return jnp.max(values, axis=0)",
        ("critics/td3", "critics/sac"),
    ),
    Mutant(
        "the noise of target actions is not clipped",
        "algorithms/off_policy/choices.py",
        "moved = actions + jnp.clip(self.noise_scale * noise, -self.noise_clip, self.noise_clip)",
        "moved = actions + self.noise_scale * noise",
        ("critics/td3",),
    ),
    Mutant(
        "target networks do not move",
        "algorithms/off_policy/update.py",
        "return polyak((target, statistics), followed, self.tau)",
        "return following",
        ("critics/targets",),
    ),
    Mutant(
        "the temperature moves the wrong way",
        "algorithms/off_policy/temperature.py",
        "missing = jax.lax.stop_gradient(entropies.log_prob) + self.target_entropy",
        "missing = -jax.lax.stop_gradient(entropies.log_prob) - self.target_entropy",
        ("critics/temperature",),
    ),
    Mutant(
        "entropy costs in SAC's values",
        "algorithms/off_policy/state_values.py",
        "return Valued(value - entropy_part(alpha, chosen.log_probs), chosen.log_probs)",
        "return Valued(value + entropy_part(alpha, chosen.log_probs), chosen.log_probs)",
        ("critics/sac", "critics/sac-policy"),
    ),
    Mutant(
        "no temperature before the soft maximum",
        "algorithms/off_policy/state_values.py",
        "return Valued(alpha * jax.nn.logsumexp(scaled, axis=-1), negative_entropy)",
        "return Valued(jax.nn.logsumexp(scaled, axis=-1), negative_entropy)",
        ("soft/sql-values",),
    ),
    Mutant(
        "particles do not push each other away",
        "algorithms/off_policy/stein.py",
        "pushes = kernel * (scores[:, None] - 2.0 * apart / width[..., None])",
        "pushes = kernel * scores[:, None]",
        ("soft/stein",),
    ),
    Mutant(
        "the reset's row is stored as the successor",
        "envs/compiled.py",
        "CompiledStep(observation, rewards, terminated, truncated & ~terminated, successor, costs, infos or ())",
        "CompiledStep(observation, rewards, terminated, truncated & ~terminated, observation, costs, infos or ())",
        ("experience/compiled-ends",),
    ),
    Mutant(
        "the reset's row is stored as the successor, in Python",
        "envs/host.py",
        "successors = batches.copy(observations)",
        "successors = observations",
        ("experience/host-ends",),
    ),
    Mutant(
        "replayed rows bootstrap at terminations",
        "experience/replay.py",
        "discounts=discount * (1.0 - terminated),",
        "discounts=discount,",
        ("experience/replay-targets",),
    ),
    Mutant(
        "replayed rows do not bootstrap at time limits",
        "experience/replay.py",
        "return worth(reward, cost), terminated, jnp.maximum(terminated, truncated), valid",
        "return worth(reward, cost), jnp.maximum(terminated, truncated), jnp.maximum(terminated, truncated), valid",
        ("experience/replay-targets",),
    ),
    Mutant(
        "rewards are summed up across episodes",
        "experience/replay.py",
        "goes_on = (ended == 0.0) & (ages > 0)",
        "goes_on = ages > 0",
        ("experience/replay-targets",),
    ),
    Mutant(
        "a resumed run counts its iterations anew",
        "training/training.py",
        'self.steps, self.iterations = record["steps"], record["iterations"]',
        'self.steps, self.iterations = record["steps"], 0',
        ("runs/resume",),
    ),
    Mutant(
        "a checkpoint's arrays are not looked at",
        "runs/checkpoints.py",
        'if sha256(data) != known["arrays"][STATE]:',
        "if not data:",
        ("runs/flipped-bit",),
    ),
    Mutant(
        "episodes of an evaluation are seeded by their place in a group",
        "collecting/evaluation.py",
        "seeds = [seed + i for i in group]",
        "seeds = [seed + i for i in range(len(group))]",
        ("runs/evaluation",),
    ),
)


def verified(source: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Run ``jumar verify --json`` of a copy of the package, and return what it says."""
    environment = {**os.environ, "PYTHONPATH": str(source.parent)}
    command = [sys.executable, "-m", "jumar", "verify", *names, "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=source.parent, timeout=3600, check=False
    )
    lines = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"error": done.stderr}
    if "error" in found:
        raise SystemExit(f"jumar verify cannot run: {found['error']}")
    assert (done.returncode == 1) == (found["failed"] > 0), "the exit code says something else than the result"
    return found


def write(module: Path, text: str) -> None:
    """Write a module, and forget its bytecode: Python takes a file of the same size and second for the same."""
    module.write_text(text, encoding="utf-8")
    for compiled in (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc"):
        compiled.unlink()


def described(check: dict[str, Any]) -> str:
    """Return what a failed check measured, and its bound."""
    if "error" in check:
        return f"{check['name']}: {check['error']}"
    return f"{check['name']} {check['measured']:.2g} > {check['bound']:.2g}"


def main() -> int:
    """Run the mutants that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="run jumar verify on copies of Jumar with one error each")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of the names of mutants (default: all)")
    parser.add_argument(
        "--whole", action="store_true", help="run all checks on each mutant, not only the affected ones"
    )
    arguments = parser.parse_args()
    chosen = [x for x in MUTANTS if not arguments.names or any(name in x.name for name in arguments.names)]
    texts = [mutant.text() for mutant in chosen]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="jumar-mutants-") as folder:
        copy = Path(folder) / "jumar"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        affected = () if arguments.whole else tuple(dict.fromkeys(name for each in chosen for name in each.checks))
        sound = verified(copy, affected)
        broken = [described(check) for check in sound["checks"] if not check["passed"]]
        if broken:
            raise SystemExit("the code as it is does not pass: " + "; ".join(broken))
        print(f"{'unchanged':<62}  passes {sound['passed']} checks", flush=True)
        for mutant, text in zip(chosen, texts, strict=True):
            write(copy / mutant.file, text)
            found = verified(copy, () if arguments.whole else mutant.checks)
            write(copy / mutant.file, (SOURCE / mutant.file).read_text(encoding="utf-8"))
            caught = [described(check) for check in found["checks"] if not check["passed"]]
            survivors += not caught
            print(f"{mutant.name:<62}  {'; '.join(caught) or 'SURVIVES'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants were caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
