"""Steps that are to stay near the old policy: lengths, sampled divergences, clipping and signs, as printed and right."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.lab import gradients, improvement, tabular
from jumar.lab.arguments import ArrayLike
from jumar.lab.examples.example import Example, Findings
from jumar.lab.examples.processes import ENDLESS, EPISODE, NEW, OLD, POLICIES, by_action, policy, softmax_data, tables
from jumar.lab.precision import compiled_in_double
from jumar.lab.rollouts import discounts
from jumar.lab.texts import BOOK, LECTURE, NOTES
from jumar.lab.trajectories import every_trajectory, log_ratios, probabilities, sampled_kl, trajectory_kl
from jumar.policies.distributions import Categorical
from jumar.solvers.fisher import scores
from jumar.solvers.objectives import clipped_surrogate

DELTA = 0.01


def _find_length() -> Findings:
    def steps(flat: Array) -> tuple[Array, ...]:
        gradient = gradients.policy_gradient(ENDLESS, policy, flat)
        fisher = gradients.step_fisher(policy, flat, tabular.state_distribution(ENDLESS, policy(flat)))
        direction = gradients.solve(fisher, gradient)
        right = gradients.natural_step(fisher, gradient, DELTA)
        printed = jnp.sqrt(DELTA / (gradient @ fisher @ gradient)) * direction
        kl = [improvement.mean_kl(ENDLESS, policy(flat), policy(flat + step)) for step in (right, printed)]
        quadratic = [0.5 * step @ fisher @ step for step in (right, printed)]
        return gradient, direction, right, printed, jnp.stack(quadratic), jnp.stack(kl)

    gradient, direction, right, printed, quadratic, kl = compiled_in_double(steps)(OLD)
    lengths = [np.linalg.norm(step) / np.linalg.norm(direction) for step in (right, printed)]
    return Findings(
        {**tables(ENDLESS), "policy": "softmax of theta[s, a]", **softmax_data(theta=OLD), "delta": DELTA},
        {
            "gradient g": by_action(gradient),
            "F^-1 g": by_action(direction),
            "multiplier eta of g = eta F step": np.sqrt(gradient @ direction / (2.0 * DELTA)),
            "1 / eta": lengths[0],
            "quadratic divergence of the right step": quadratic[0],
            "of the printed one": quadratic[1],
            "mean KL after the right step": kl[0],
            "after the printed one": kl[1],
        },
        {"factor of F^-1 g": "sqrt(delta / g^T F g)", "its value": lengths[1], "quadratic divergence": quadratic[1]},
        {
            "factor of F^-1 g": "sqrt(2 delta / g^T F^-1 g)",
            "its value": lengths[0],
            "quadratic divergence": quadratic[0],
        },
    )


SEEN = np.array([[0, 1, 2, 0], [1, 1, 2, 2], [0, 0, 0, 1], [0, 1, 1, 2], [1, 0, 1, 2], [0, 0, 1, 1]])
DONE = np.array([[1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 1, 1], [0, 1, 0, 1]])
DATA_SAMPLED = {
    **tables(EPISODE),
    "policy": "softmax of theta[s, a]",
    **softmax_data(theta=OLD),
    "states of 6 trajectories": SEEN,
    "their actions": DONE,
}
LENGTHS = np.array([0.05, 0.15, 0.3])


def _find_sampled() -> Findings:
    def along(flat: Array) -> tuple[Array, Array]:
        each = scores(lambda flat: policy(flat).log_probs, flat)[SEEN, DONE]
        direction = jnp.sum(each, (0, 1))
        old, sums, exact = policy(flat), [], []
        for length in LENGTHS:
            new = policy(flat + length * direction)
            sums.append(jnp.sum(sampled_kl(old, new, SEEN, DONE)))
            exact.append(trajectory_kl(EPISODE, old, new))
        return jnp.stack(sums), jnp.stack(exact)

    sums, exact = compiled_in_double(along)(OLD)
    return Findings(
        {**DATA_SAMPLED, "step, times the sum of scores": LENGTHS},
        {
            "sum of log(pi_old / pi_new), 6 trajectories": sums,
            "the mean, per trajectory": sums / len(SEEN),
            "exact KL of trajectories": exact,
        },
        {"what is at most delta": "sum_m sum_h log(pi_k / pi)", "its values": sums},
        {"what is at most delta": "the mean over m of it, or exact KL", "its values": exact},
    )


def _find_objective_sign() -> Findings:
    rate, beta = 0.05, 1.0

    def parts() -> tuple[Array, ...]:
        old = policy(OLD)

        def objective(flat: Array) -> Array:
            new = policy(flat)
            return improvement.surrogate(EPISODE, old, new) - beta * improvement.mean_kl(EPISODE, old, new)

        slope = jax.grad(objective)(jnp.asarray(OLD))
        worths = [tabular.performance(EPISODE, policy(OLD + sign * rate * slope)) for sign in (0.0, 1.0, -1.0)]
        values = [objective(OLD + sign * rate * slope) for sign in (1.0, -1.0)]
        return slope, *worths, *values

    slope, before, up, down, objective_up, objective_down = compiled_in_double(parts)()
    return Findings(
        {
            **tables(EPISODE),
            "policy": "softmax of theta[s, a]",
            **softmax_data(theta=OLD),
            "lambda": beta,
            "step": rate,
        },
        {
            "slope of L - lambda KL at theta": by_action(slope),
            "J before": before,
            "objective after a step up": objective_up,
            "objective after a step down": objective_down,
        },
        {"penalised objective, and the clipped one": "min", "J after the step": down},
        {"penalised objective, and the clipped one": "max", "J after the step": up},
    )


def _find_value() -> Findings:
    every = every_trajectory(EPISODE)

    def means() -> tuple[Array, ...]:
        old, new = policy(OLD), policy(NEW)
        values, times = tabular.state_values(EPISODE, old), jnp.arange(SEEN.shape[1])
        weights = discounts(EPISODE.gamma, SEEN.shape[1])

        def sums(at: Categorical, states: ArrayLike, actions: ArrayLike) -> Array:
            return jnp.exp(log_ratios(at, old, states, actions)) * values[times, jnp.asarray(states)] @ weights

        sampled = [jnp.mean(sums(at, SEEN, DONE)) for at in (old, new)]
        probs = probabilities(EPISODE, old, every)
        exact = [probs @ sums(at, every.states, every.actions) for at in (old, new)]
        return *sampled, *exact

    sampled_old, sampled_new, exact_old, exact_new = compiled_in_double(means)()
    return Findings(
        {**DATA_SAMPLED, **softmax_data(**{"theta, new": NEW})},
        {
            "E[sum gamma^t w V] at theta, exactly": exact_old,
            "at theta, new": exact_new,
            "6 trajectories, at theta": sampled_old,
            "6 trajectories, at theta, new": sampled_new,
        },
        {"change that the term makes, exactly": 0.0, "on the 6 trajectories": 0.0},
        {
            "change that the term makes, exactly": exact_new - exact_old,
            "on the 6 trajectories": sampled_new - sampled_old,
        },
    )


CLIP_RANGE = 0.2
COSTS = replace(EPISODE, rewards=EPISODE.rewards - 4.0)
"""The same process with rewards that are all negative, as the regulator's are."""


def _find_clipped_signal() -> Findings:
    def slopes() -> tuple[Array, ...]:
        old, at = policy(OLD), jnp.asarray(0.5 * (OLD + NEW))
        visited = tabular.visitation(COSTS, old)[..., None] * old.probs
        signals = (tabular.action_values(COSTS, old), tabular.advantages(COSTS, old))

        def gained(flat: Array, signal: Array, clip_range: float) -> Array:
            return jnp.sum(visited * clipped_surrogate(policy(flat).log_probs, old.log_probs, signal, clip_range))

        return tuple(jax.grad(gained)(at, signal, clip_range) for clip_range in (1e6, CLIP_RANGE) for signal in signals)

    free_by_value, free_by_advantage, by_value, by_advantage = map(by_action, compiled_in_double(slopes)())
    cosine = np.sum(by_value * by_advantage) / np.linalg.norm(by_value) / np.linalg.norm(by_advantage)
    return Findings(
        {**tables(COSTS), **POLICIES, "clip range": CLIP_RANGE, "gradient at": "half of the way from old to new"},
        {
            "without clipping, by Q": free_by_value,
            "without clipping, by A": free_by_advantage,
            "clipped, by Q": by_value,
            "clipped, by A": by_advantage,
            "cosine of the clipped ones": cosine,
        },
        {"signal of Algorithm 12.6": "reward-to-go", "clipped gradient": by_value},
        {"signal of Algorithm 12.6": "A, as in equation 12.22", "clipped gradient": by_advantage},
    )


EXAMPLES = (
    Example(
        "natural-step-length",
        "how long a natural step is",
        f"{NOTES}, section 4.6.3",
        "How far along F^-1 g is the quadratic divergence delta?",
        "Wrong: F stands in place of its inverse, and the factor 2 is missing. The notes derive g = eta F step, so that "
        "the factor is 1 / eta, and then use eta itself. The step as printed does not end where the quadratic divergence "
        "is delta.",
        _find_length,
    ),
    Example(
        "sampled-divergence",
        "a divergence estimated from few trajectories",
        f"{NOTES}, Definition 4.6.4",
        "Can sums of log ratios over a few trajectories stand for the divergence in a constraint?",
        "Wrong by a factor of M, as the mean over the trajectories is missing. The mean is an unbiased estimate of their "
        "divergence, but can be negative however far the policies are apart: along the sum of the scores it always is at "
        "first. So it cannot be the only constraint; the exact divergence at the states visited can.",
        _find_sampled,
    ),
    Example(
        "value-on-samples",
        "whether a state value may be dropped from advantages",
        f"{BOOK}, equation 12.18",
        "In the surrogate objective Q stands for A, as the value of a state does not depend on the action. Does that "
        "change where the objective is largest?",
        "Wrong for samples, right in expectation. The mean of w V over all trajectories is the same for every new policy. "
        "Over a few of them it changes with the new policy, and so do the best parameters of the sampled objective.",
        _find_value,
    ),
    Example(
        "clipped-signal",
        "what the clipped objective judges actions by",
        f"{BOOK}, equation 12.22 and Algorithm 12.6",
        "May the reward-to-go stand for the advantage in the clipped objective, as it may in the surrogate objective?",
        "Wrong if the algorithm is to be that of the equation: the sign of the signal decides where an action is clipped, "
        "and a value subtracted from it no longer cancels. Where all rewards are negative, every action counts as bad.",
        _find_clipped_signal,
    ),
    Example(
        "objective-sign",
        "whether PPO's objectives are minimised",
        f"{LECTURE}, PPO and PPO2",
        "Is the surrogate with a penalty to be minimised or maximised?",
        "Wrong: both objectives are to be maximised, or their negatives minimised. A step that makes L - lambda KL "
        "smaller makes the policy worse, and goes away from the old one. The rule for lambda on the same slide is right.",
        _find_objective_sign,
    ),
)
"""The examples of this module."""
