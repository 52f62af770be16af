"""What a new policy gains on an old one, and lower bounds of it, as printed and as they should be."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.lab import gradients, improvement, tabular
from jumar.lab.bounds import max_total_variation, mismatch_bounds, mismatch_example, printed_mismatch_bound
from jumar.lab.examples.example import Example, Findings
from jumar.lab.examples.processes import ENDLESS, EPISODE, NEW, OLD, POLICIES, by_action, policy, softmax_data, tables
from jumar.lab.precision import compiled_in_double
from jumar.lab.rollouts import discounts
from jumar.lab.texts import BOOK, LECTURE, NATURAL_SLIDES, TRPO_SLIDES
from jumar.lab.trajectories import every_trajectory, probabilities

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

    difference, printed, right = compiled_in_double(sums)()
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

    difference, printed, right = compiled_in_double(sums)()
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

    difference, promised, divergence, bound = compiled_in_double(parts)()
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

    difference, promised, divergence, bound = compiled_in_double(parts)()
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

    at_old, worth, slope, gradient = compiled_in_double(parts)()
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

    difference, promised, printed, right = compiled_in_double(jax.vmap(parts))(scales)
    return Findings(
        {**tables(mdp), "pi_old(a|s)": old.probs, "pi_new(a|s)": new.probs, "rewards times": scales},
        {
            "max_s TV(old, new)": compiled_in_double(max_total_variation)(old, new),
            "J(new) - J(old)": difference,
            "surrogate L": promised,
            "L - 2 eps T^2": printed,
            "L - sum_t 2 t eps max_s |E_a A|": right,
        },
        {"lower bound": "L - 2 eps T^2", "it is at most J(new) - J(old)": printed <= difference},
        {"lower bound": "L - sum_t 2 t eps max_s |E_a A|", "it is at most J(new) - J(old)": right <= difference},
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
)
"""The examples of this module."""
