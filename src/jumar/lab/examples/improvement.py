"""What a new policy gains on an old one, its lower bounds, and steps that stay near: as printed, and as they should be."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.lab import gradients, improvement, tabular
from jumar.lab.bounds import max_total_variation, mismatch_bounds, mismatch_example, printed_mismatch_bound
from jumar.lab.examples.example import (
    BOOK,
    LECTURE,
    NATURAL_SLIDES,
    NOTES,
    TRPO_SLIDES,
    Example,
    Findings,
    exactly,
)
from jumar.lab.examples.processes import ENDLESS, EPISODE, NEW, OLD, by_action, policy, softmax_data, tables
from jumar.lab.rollouts import discounts
from jumar.lab.trajectories import every_trajectory, probabilities, sampled_kl, trajectory_kl
from jumar.solvers.fisher import scores
from jumar.solvers.objectives import clipped_surrogate

POLICIES = {"policies": "softmax of theta[s, a]", **softmax_data(**{"theta, old": OLD, "theta, new": NEW})}
DATA = {**tables(EPISODE), **POLICIES}
DATA_ENDLESS = {**tables(ENDLESS), **POLICIES}


def _find_difference() -> Findings:
    every = every_trajectory(EPISODE)

    def sums() -> tuple[Array, Array, Array]:
        old, new = policy(OLD), policy(NEW)
        steps = jnp.arange(EPISODE.horizon or 0)
        earned = tabular.advantages(EPISODE, old)[steps, every.states, every.actions]
        probs, weights = probabilities(EPISODE, new, every), discounts(EPISODE.gamma, len(steps))
        difference = tabular.performance(EPISODE, new) - tabular.performance(EPISODE, old)
        return difference, probs @ jnp.sum(earned, 1), probs @ (earned @ weights)

    difference, printed, right = exactly(sums)()
    return Findings(
        DATA,
        {"J(new) - J(old)": difference, "E[sum_t A(s_t, a_t)]": printed, "E[sum_t gamma^t A(s_t, a_t)]": right},
        {"of each term": "A(s_t, a_t)", "J(new) - J(old)": printed},
        {"of each term": "gamma^t A(s_t, a_t)", "J(new) - J(old)": right},
    )


def _find_normalisation() -> Findings:
    def sums() -> tuple[Array, Array, Array]:
        old, new = policy(OLD), policy(NEW)
        each = jnp.sum(new.probs * tabular.advantages(ENDLESS, old), -1)
        difference = tabular.performance(ENDLESS, new) - tabular.performance(ENDLESS, old)
        return difference, tabular.state_distribution(ENDLESS, new) @ each, tabular.visitation(ENDLESS, new) @ each

    difference, printed, right = exactly(sums)()
    return Findings(
        DATA_ENDLESS,
        {"J(new) - J(old)": difference, "E[A], states from d": printed, "sum of A, states with rho": right},
        {"factor before the mean": "1", "J(new) - J(old)": printed},
        {"factor before the mean": "1 / (1 - gamma)", "J(new) - J(old)": printed / (1.0 - ENDLESS.gamma)},
    )


def _find_penalty_sign() -> Findings:
    def parts() -> tuple[Array, ...]:
        old, new = policy(OLD), policy(NEW)
        return (
            improvement.performance_difference(ENDLESS, old, new),
            improvement.surrogate(ENDLESS, old, new),
            improvement.max_kl(old, new),
            improvement.max_kl_bound(ENDLESS, old, new),
        )

    difference, promised, divergence, bound = exactly(parts)()
    penalty = promised - bound
    return Findings(
        DATA_ENDLESS,
        {
            "J(new) - J(old)": difference,
            "surrogate L": promised,
            "max_s KL(old || new)": divergence,
            "C = 4 eps gamma / (1 - gamma)^2": penalty / divergence,
            "L - C max KL": bound,
            "L + C max KL": promised + penalty,
        },
        {"lower bound": "L + C max KL", "it is at most J(new) - J(old)": bool(promised + penalty <= difference)},
        {"lower bound": "L - C max KL", "it is at most J(new) - J(old)": bool(bound <= difference)},
    )


SHARE = 0.01


def _find_square_root() -> Findings:
    near = OLD + SHARE * (NEW - OLD)

    def parts() -> tuple[Array, ...]:
        old, new = policy(OLD), policy(near)
        return (
            improvement.performance_difference(ENDLESS, old, new),
            improvement.surrogate(ENDLESS, old, new),
            improvement.mean_kl(ENDLESS, old, new),
            improvement.mean_kl_bound(ENDLESS, old, new),
        )

    difference, promised, divergence, bound = exactly(parts)()
    constant = (promised - bound) / np.sqrt(divergence)
    printed = promised - constant * divergence
    return Findings(
        {**DATA_ENDLESS, "step, share of the way to new": SHARE},
        {
            "J(new) - J(old)": difference,
            "surrogate L": promised,
            "E[KL(old || new)]": divergence,
            "C = sqrt(2) gamma eps / (1 - gamma)^2": constant,
            "L - C E[KL]": printed,
            "L - C sqrt(E[KL])": bound,
        },
        {"lower bound": "L - C E[KL]", "it is at most J(new) - J(old)": bool(printed <= difference)},
        {"lower bound": "L - C sqrt(E[KL])", "it is at most J(new) - J(old)": bool(bound <= difference)},
    )


def _find_at_old() -> Findings:
    def parts() -> tuple[Array, ...]:
        old = policy(OLD)
        slope = jax.grad(lambda flat: improvement.surrogate(EPISODE, old, policy(flat)))(jnp.asarray(OLD))
        return (
            improvement.surrogate(EPISODE, old, old),
            tabular.performance(EPISODE, old),
            slope,
            gradients.policy_gradient(EPISODE, policy, jnp.asarray(OLD)),
        )

    at_old, worth, slope, gradient = exactly(parts)()
    return Findings(
        {**tables(EPISODE), "policy": "softmax of theta[s, a]", **softmax_data(theta=OLD)},
        {"J(theta)": worth, "gradient of J at theta": by_action(gradient)},
        {"mean advantage of theta over itself": worth, "its gradient at theta": by_action(gradient)},
        {"mean advantage of theta over itself": at_old, "its gradient at theta": by_action(slope)},
    )


def _find_mismatch() -> Findings:
    scales = np.array([1.0, 100.0])
    mdp, old, new = mismatch_example(1.0)

    def parts(scale: Array) -> tuple[Array, ...]:
        scaled = replace(mdp, rewards=scale * mdp.rewards)
        return (
            improvement.performance_difference(scaled, old, new),
            improvement.surrogate(scaled, old, new),
            printed_mismatch_bound(scaled, old, new),
            mismatch_bounds(scaled, old, new).lower,
        )

    difference, promised, printed, right = exactly(jax.vmap(parts))(scales)
    return Findings(
        {**tables(mdp), "pi_old(a|s)": old.probs, "pi_new(a|s)": new.probs, "rewards times": scales},
        {
            "max_s TV(old, new)": exactly(max_total_variation)(old, new),
            "J(new) - J(old)": difference,
            "surrogate L": promised,
            "L - 2 eps T^2": printed,
            "L - sum_t 2 t eps max_s |E_a A|": right,
        },
        {"lower bound": "L - 2 eps T^2", "it is at most J(new) - J(old)": printed <= difference},
        {"lower bound": "L - sum_t 2 t eps max_s |E_a A|", "it is at most J(new) - J(old)": right <= difference},
    )


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

    gradient, direction, right, printed, quadratic, kl = exactly(steps)(OLD)
    lengths = [np.linalg.norm(step) / np.linalg.norm(direction) for step in (right, printed)]
    return Findings(
        {**tables(ENDLESS), "policy": "softmax of theta[s, a]", **softmax_data(theta=OLD), "delta": DELTA},
        {
            "gradient g": by_action(gradient),
            "F^-1 g": by_action(direction),
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

    sums, exact = exactly(along)(OLD)
    return Findings(
        {
            **tables(EPISODE),
            "policy": "softmax of theta[s, a]",
            **softmax_data(theta=OLD),
            "states of 6 trajectories": SEEN,
            "their actions": DONE,
            "step, times the sum of scores": LENGTHS,
        },
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

    slope, before, up, down, objective_up, objective_down = exactly(parts)()
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

    free_by_value, free_by_advantage, by_value, by_advantage = map(by_action, exactly(slopes)())
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
        "performance-difference",
        "what a new policy gains, by the old one's advantages",
        f"{BOOK}, equation 12.14",
        "By how much is a new policy better, as an expectation over its trajectories of the advantages of the old one?",
        "Wrong: the discount is missing in the sum. With gamma^t it is the lemma of Kakade and Langford 2002.",
        _find_difference,
    ),
    Example(
        "visitation-normalisation",
        "the same as a mean over a distribution of states",
        f"{NATURAL_SLIDES}; likewise {BOOK}, equations 12.15 to 12.17",
        "By how much is a new policy better, as a mean of advantages over the normalised discounted visits d?",
        "Wrong by the factor 1 / (1 - gamma), as d = (1 - gamma) rho is normalised to a distribution. Another slide has "
        "the factor; the book, which defines its distribution up to a constant, needs it too.",
        _find_normalisation,
    ),
    Example(
        "penalty-sign",
        "the lower bound with the largest divergence",
        f"{TRPO_SLIDES}, surrogate of step I",
        "Which lower bound of the gain follows from the surrogate L and the largest divergence over states?",
        "Wrong sign, in three places of the slides; those on minorise-maximise have it right. The penalty is subtracted. "
        "The slides leave C open: it is that of Schulman et al. 2015, with eps the largest |A|.",
        _find_penalty_sign,
    ),
    Example(
        "penalty-root",
        "the lower bound with the mean divergence",
        f"{NATURAL_SLIDES}, monotonic improvement",
        "Which lower bound of the gain follows from the surrogate L and the mean divergence?",
        "Wrong: the root is missing (Achiam et al. 2017). Where the policies are near, L misses the gain by an amount of "
        "the order of KL, while C, with its eps, is itself small, so that C KL is less than that.",
        _find_square_root,
    ),
    Example(
        "mismatch-bound",
        "the lower bound with total variation",
        f"{LECTURE}, distribution mismatch",
        "The probabilities of two policies differ by at most eps. Which lower bound of the gain follows, over T steps?",
        "Wrong where rewards are large: what is subtracted has no scale of rewards in it. The size of the mean advantage "
        "is a factor, and eps is a total variation, as many actions may each differ by little.",
        _find_mismatch,
    ),
    Example(
        "advantage-over-itself",
        "the mean advantage at the old parameters",
        f"{LECTURE}, constrained objective",
        "What are the mean advantage of a policy over itself, and its gradient?",
        "Wrong: a policy has no advantage over itself, so the mean is 0 and not J. The gradients are the same, which may "
        "be what the slide means (with a distribution of states that is normalised, up to the factor 1 - gamma).",
        _find_at_old,
    ),
    Example(
        "natural-step-length",
        "how long a natural step is",
        f"{NOTES}, section 4.6.3",
        "How far along F^-1 g is the quadratic divergence delta?",
        "Wrong: F stands in place of its inverse, and the factor 2 is missing. The step as printed does not end where the "
        "quadratic divergence is delta.",
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
