"""Off-policy updates on a few rows against the papers' targets and gradients, worked out in NumPy for linear networks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.algorithms.off_policy.improvements import Given, Rows
from jumar.algorithms.off_policy.state_values import States
from jumar.algorithms.registry import algorithm
from jumar.lab import regulator
from jumar.lab.precision import compiled_in_double
from jumar.lab.regulator import Regulator
from jumar.policies.policy import make_policy
from jumar.verification.compare import gap, relative_gap
from jumar.verification.registry import check
from jumar.verification.replayed import (
    ACTIONS,
    HALF,
    MIDDLE,
    NOISE_CLIP,
    NOISE_SCALE,
    PLAIN,
    SEEN,
    TAU,
    Studied,
    double,
    noise,
    plain,
    rows,
    scattered,
    studied,
)

SINGLE = 1e-5


def _q(critic: Any, observations: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return Q of all critics, ``[n, B]``."""
    return (np.concatenate([observations, units], -1) @ critic["first"]["kernel"] + critic["first"]["bias"]).T


def _mode(policy: Any, observations: np.ndarray) -> np.ndarray:
    return np.tanh(observations @ policy["head"]["mean"]["kernel"] + policy["head"]["mean"]["bias"])


def _drawn(policy: Any, observations: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return SAC's actions, log pi of them in the Box's units, and the deviations."""
    head = policy["head"]
    log_std = np.clip(observations @ head["log_std"]["kernel"] + head["log_std"]["bias"], -20.0, 2.0)
    u = observations @ head["mean"]["kernel"] + head["mean"]["bias"] + np.exp(log_std) * drawn
    normal = -0.5 * drawn**2 - log_std - 0.5 * np.log(2.0 * np.pi)
    return np.tanh(u), np.sum(normal - np.log(1.0 - np.tanh(u) ** 2) - np.log(HALF), -1), np.exp(log_std)


def _target(name: str, found: Studied) -> np.ndarray:
    """Return the targets ``[B]`` of the paper."""
    old, drawn = found.before, double(rows())
    target, successors = {**old, **old["target"]}, drawn.successors
    first = noise()[0].astype(np.float64)
    if name == "sac":
        units, log_prob, _ = _drawn(old["policy"], successors, first)
        bonus = -np.exp(old["temperature"]["log_alpha"]) * log_prob
    elif name == "dpg on policy":
        units, bonus = (drawn.next_actions - MIDDLE) / HALF, 0.0
    else:
        units, bonus = _mode(target["policy"], successors), 0.0
        if name == "td3":
            units = np.clip(units + np.clip(NOISE_SCALE * first, -NOISE_CLIP, NOISE_CLIP), -1.0, 1.0)
    return drawn.rewards + drawn.discounts * (_q(target["critic"], successors, units).min(0) + bonus)


def _critic_step(name: str) -> float:
    """Return how far the critics' step is from the gradient of half of their squared errors."""
    found, drawn = studied(name), double(rows())
    units = (drawn.actions - MIDDLE) / HALF
    inputs = np.concatenate([drawn.observations, units], -1)
    errors = _target(name, found) - _q(found.before["critic"], drawn.observations, units)
    shares = drawn.weights / drawn.weights.sum()
    wanted = {"kernel": np.einsum("b,bi,nb->in", shares, inputs, errors), "bias": errors @ shares}
    old, new = found.before["critic"]["first"], found.after["critic"]["first"]
    return max(relative_gap(new[key] - old[key], wanted[key]) for key in wanted)


@check(
    "critics/dpg",
    "the critic's step against the gradient with the target of critic and policy themselves",
    SINGLE,
    True,
)
def dpg() -> float:
    return _critic_step("dpg")


@check("critics/dpg-on-policy", "the critic's step with the action that was taken next, as in Sarsa", SINGLE, True)
def dpg_on_policy() -> float:
    return _critic_step("dpg on policy")


@check("critics/ddpg", "the critic's step against the gradient with the paper's target", SINGLE, quick=True)
def ddpg() -> float:
    return _critic_step("ddpg")


@check(
    "critics/td3",
    "the critics' steps: the least of two, clipped noise on the target policy's action",
    SINGLE,
    quick=True,
)
def td3() -> float:
    return _critic_step("td3")


@check(
    "critics/sac", "the critics' steps: the least of two, less alpha log pi of a squashed action", SINGLE, quick=True
)
def sac() -> float:
    return _critic_step("sac")


def _head_gap(name: str, wanted: dict[str, tuple[np.ndarray, np.ndarray]]) -> float:
    found = studied(name)
    old, new = found.before["policy"]["head"], found.after["policy"]["head"]
    return max(
        relative_gap(new[part][key] - old[part][key], x)
        for part, pair in wanted.items()
        for key, x in zip(("kernel", "bias"), pair, strict=True)
    )


def _pulled_back(slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of a linear layer's kernel and bias, of the slopes ``[B, d]`` in its outputs."""
    drawn = double(rows())
    weighted = drawn.weights[:, None] / drawn.weights.sum() * slopes
    return drawn.observations.T @ weighted, weighted.sum(0)


def _deterministic(name: str) -> float:
    """Return how far the policy's step is from the deterministic policy gradient with the critic after its own step."""
    found, drawn = studied(name), double(rows())
    units = _mode(found.before["policy"], drawn.observations)
    slopes = found.after["critic"]["first"]["kernel"][3:, 0] * (1.0 - units**2)
    return _head_gap(name, {"mean": _pulled_back(slopes)})


@check("critics/dpg-policy", "the policy's step against the deterministic policy gradient", SINGLE, True)
def dpg_policy() -> float:
    return _deterministic("dpg")


@check("critics/ddpg-policy", "the policy's step against the deterministic policy gradient", SINGLE, quick=True)
def ddpg_policy() -> float:
    return _deterministic("ddpg")


@check("critics/td3-policy", "the policy's step against that of the first critic", SINGLE, quick=True)
def td3_policy() -> float:
    return _deterministic("td3")


@check(
    "critics/sac-policy", "the policy's step against the gradient through its action, with entropy", SINGLE, quick=True
)
def sac_policy() -> float:
    found, drawn, second = studied("sac"), double(rows()), noise()[1].astype(np.float64)
    units, _, deviations = _drawn(found.before["policy"], drawn.observations, second)
    critic = found.after["critic"]
    least = _q(critic, drawn.observations, units).argmin(0)
    alpha = np.exp(found.before["temperature"]["log_alpha"])
    of_mean = critic["first"]["kernel"][3:].T[least] * (1.0 - units**2) - alpha * 2.0 * units
    of_log_std = of_mean * deviations * second + alpha
    return _head_gap("sac", {"mean": _pulled_back(of_mean), "log_std": _pulled_back(of_log_std)})


@check(
    "critics/temperature",
    "the step of log alpha against E[log pi] + target entropy: up where entropy is missing",
    SINGLE,
    quick=True,
)
def temperature() -> float:
    found, drawn = studied("sac"), double(rows())
    _, log_prob, _ = _drawn(found.before["policy"], drawn.observations, noise()[1].astype(np.float64))
    missing = drawn.weights @ log_prob / drawn.weights.sum() - 2.0 + np.sum(np.log(HALF))
    change = found.after["temperature"]["log_alpha"] - found.before["temperature"]["log_alpha"]
    return abs(float(change / missing) - 1.0)


@check("critics/targets", "target networks against (1 - tau) of themselves and tau of the networks", 1e-6, quick=True)
def targets() -> float:
    worst = 0.0
    for name in ("ddpg", "td3", "sac"):
        found = studied(name)
        groups = found.before["target"]
        moved = jax.tree.map(lambda a, b: (1.0 - TAU) * a + TAU * b, groups, {key: found.after[key] for key in groups})
        pairs = zip(jax.tree.leaves(found.after["target"]), jax.tree.leaves(moved), strict=True)
        worst = max(worst, *(gap(*pair) for pair in pairs))
    return worst


@check(
    "critics/compatible",
    "Q of DPG's compatible critic against V + (a - mu) J w, worked out for a linear policy",
    SINGLE,
    True,
)
def compatible() -> float:
    chosen = algorithm("dpg")
    settings = chosen.settings.make({"net_arch": (), "critic": "compatible"})
    update: Any = chosen.make(settings, make_policy(SEEN, ACTIONS, settings))  # type: ignore[arg-type]
    shapes = jax.eval_shape(lambda key: update.init(key, 1).parameters, jax.random.PRNGKey(0))
    parameters, drawn = scattered({key: shapes[key] for key in ("policy", "critic")}, 8), rows()
    units = ((drawn.actions - MIDDLE) / HALF).astype(np.float32)

    @jax.jit
    def told(parameters: Any, observations: Any, units: Any, key: Any) -> Any:
        critic, policy = parameters["critic"], parameters["policy"]
        return update.critic.apply(critic, policy, {"vector": observations}, units, key, True)[0][0]

    found = told(parameters, drawn.observations, units, np.zeros(2, np.uint32))
    exact, seen = double(parameters), np.asarray(drawn.observations, np.float64)
    mode, w = _mode(exact["policy"], seen), exact["critic"]["weights"]["head"]["mean"]
    slopes = (1.0 - mode**2) * (seen @ w["kernel"] + w["bias"])
    value = seen @ exact["critic"]["value"]["kernel"][:, 0] + exact["critic"]["value"]["bias"]
    return relative_gap(found, value + np.sum((units - mode) * slopes, -1))


TINY = 0.02
"""States are so small that tanh, which squashes actions, is linear."""


@check(
    "critics/dpg-regulator",
    "DPG's step with the regulator's own Q against its exact deterministic gradient",
    1e-3,
    quick=True,
)
def dpg_regulator() -> float:
    """There is a state for each step, with the exact second moment, weighted by the discount."""
    problem, gain = Regulator(gamma=0.9), -0.6

    @compiled_in_double
    def exactly(gain: Any) -> Any:
        moments = regulator.second_moments(problem, jnp.stack([gain, 0.0 * gain]))
        return moments, regulator.action_slopes(problem, gain), regulator.deterministic_policy_gradient(problem, gain)

    moments, slopes, wanted = exactly(np.float64(gain))
    chosen = algorithm("dpg")
    settings = chosen.settings.make({"net_arch": (), "head_bias": False})
    seen, acted = (spaces.Box(-bound, bound, (1,), np.float32) for bound in (1.0, 4.0))
    update: Any = plain(chosen.make(settings, make_policy(seen, acted, settings)))  # type: ignore[arg-type]
    states, weights = TINY * np.sqrt(moments), 0.9 ** np.arange(problem.depth)

    @jax.jit
    def moved(kernel: Any, states: Any, slopes: Any, weights: Any, key: Any) -> Any:
        class ExactCritics:
            """The regulator's action values, linear in the action as far as their slope at the policy's action matters."""

            states = States({"vector": jnp.asarray(0.0)}, None, (problem.depth, 1))

            def of(self, units: Any) -> Any:
                return (slopes * 4.0 * units[..., 0])[None]

        critics: Any = ExactCritics()
        critics.states = States({"vector": states[:, None]}, None, (problem.depth, 1))
        parameters = update.policy.init(key)
        parameters["head"]["mean"]["kernel"] = kernel
        zero, rows_of = jnp.float32(0.0), Rows(jnp.zeros((problem.depth, 1)), weights)
        given = Given(update.policy, PLAIN, critics, rows_of, zero, zero + 1.0, key, key)
        improved = update.improvement(parameters, PLAIN.init(parameters), given)
        return improved.parameters["head"]["mean"]["kernel"] - kernel

    single = (x.astype(np.float32) for x in (np.array([[gain / 4.0]]), states, slopes * states, weights))
    change = float(moved(*single, np.zeros(2, np.uint32))[0, 0])
    # In units of the gain, 4 times the kernel, of a sum over steps, in states that are not tiny.
    return abs(change / 4.0 * weights.sum() / TINY**2 / float(wanted) - 1.0)


@check(
    "critics/behaviour-cloning",
    "BC's step against the gradient of the log-likelihood of what was done",
    SINGLE,
    quick=True,
)
def behaviour_cloning() -> float:
    chosen = algorithm("bc")
    settings = chosen.settings.make({"net_arch": (), "head_bias": False, "batch_size": 5, "buffer_size": 5})
    update: Any = plain(chosen.make(settings, make_policy(spaces.Discrete(2), spaces.Discrete(3), settings)))  # type: ignore[arg-type]
    states, actions = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 2, 1, 2])
    zeros = np.zeros(5, np.float32)
    drawn = {
        "observations": states.astype(np.int32),
        "actions": actions[:, None].astype(np.float32),
        "rewards": zeros,
        "discounts": zeros,
        "successors": states.astype(np.int32),
        "weights": zeros + 1.0,
    }
    logits = np.array([[0.5, -0.3, 0.1], [-1.0, 0.2, 0.7]])

    @jax.jit
    def once(kernel: Any, drawn: Any, key: Any) -> Any:
        learner = update.init(key, 1)
        parameters = {**learner.parameters["policy"], "head": {"logits": {"kernel": kernel}}}
        learner = update.begin_with(learner, {**learner.parameters, "policy": parameters})
        new, _ = update.improve(learner, update.begin().sums, drawn, jnp.float32(1.0), key)
        return new.parameters["policy"]["head"]["logits"]["kernel"] - kernel

    from jumar.experience.replay import Transitions

    found = once(logits.astype(np.float32), Transitions(**drawn), np.zeros(2, np.uint32))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counts = np.zeros((2, 3))
    np.add.at(counts, (states, actions), 0.2)
    return relative_gap(found, counts - counts.sum(-1, keepdims=True) * p)
