"""Example 12.1 of the book, its exercises, and what is printed around it: one update within a trust region."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jumar.lab import worked
from jumar.lab.examples.example import Example, Findings
from jumar.lab.families import table
from jumar.lab.gradients import natural_step, solve
from jumar.lab.precision import compiled_in_double
from jumar.lab.rollouts import sampled_gradient
from jumar.lab.texts import BOOK, NATURAL_SLIDES
from jumar.lab.worked import EXAMPLE_12_1, EXERCISE_12_2, EXERCISE_12_3, PRINTED_12_1, TrustRegionNumbers
from jumar.solvers.fisher import trajectory_fisher
from jumar.solvers.objectives import clipped_surrogate

ROLLOUTS = {
    "actions of tau1": EXAMPLE_12_1.actions[0],
    "actions of tau2": EXAMPLE_12_1.actions[1],
    "policy": "N(theta1, theta2^2), the same in every state",
    "reward": "the action",
    "theta": EXAMPLE_12_1.theta,
    "epsilon": EXAMPLE_12_1.epsilon,
    "gamma": EXAMPLE_12_1.gamma,
}


def updated() -> TrustRegionNumbers:
    """Return what the update of Example 12.1 goes through."""
    return compiled_in_double(worked.trust_region_update)(EXAMPLE_12_1)


_scores = compiled_in_double(lambda: worked.action_scores(EXAMPLE_12_1))


def _find_example() -> Findings:
    update = updated()
    names = {
        "F(tau1)": update.fishers[0],
        "F(tau2)": update.fishers[1],
        "F, their mean": update.fisher,
        "gradient": update.gradient,
        "u = F^-1 gradient": update.direction,
        "theta'": update.theta,
        "surrogate objective at theta": update.objective_before,
        "surrogate objective at theta'": update.objective,
        "surrogate constraint at theta'": update.divergence,
    }
    printed = dict(zip(names, [*PRINTED_12_1.fishers, *PRINTED_12_1[1:]], strict=True))
    steps = {
        "sums of scores, by rollout": _scores().sum(1),
        "returns R(tau)": np.sum(EXAMPLE_12_1.actions, 1),
        "F^-1": np.linalg.inv(update.fisher),
        "step length sqrt(2 eps / g^T F^-1 g)": np.linalg.norm(update.theta - EXAMPLE_12_1.theta),
    }
    return Findings(
        ROLLOUTS,
        steps,
        printed,
        names,
        tolerance=5e-4,
    )


def _find_gradients() -> Findings:
    def both() -> tuple[jax.Array, jax.Array]:
        to_go = worked.rollouts(EXAMPLE_12_1).reward_to_go(EXAMPLE_12_1.gamma)
        slope = jax.grad(lambda new: worked.surrogate_objective(EXAMPLE_12_1, new))(jnp.asarray(EXAMPLE_12_1.theta))
        return sampled_gradient(worked.action_scores(EXAMPLE_12_1), to_go, jnp.ones(3)), slope

    to_go, slope = compiled_in_double(both)()
    length = len(EXAMPLE_12_1.actions[0])
    return Findings(
        ROLLOUTS,
        {"reward-to-go gradient, a sum over steps": to_go, "slope of Algorithm 12.5's objective, a mean": slope},
        {"slope of the objective, times the steps": to_go},
        {"slope of the objective, times the steps": length * slope},
    )


def _find_inverse() -> Findings:
    draft = EXAMPLE_12_1._replace(actions=np.array([[-0.532, -0.597, 1.947], [-0.263, -2.212, 2.364]]))

    def of_draft() -> tuple[jax.Array, jax.Array]:
        each = worked.action_scores(draft) * jnp.array([1.0, 2.0])
        returns = worked.rollouts(draft).returns(draft.gamma)
        return trajectory_fisher(each, jnp.ones((2, 3))), sampled_gradient(each, returns, jnp.ones(3))

    def step(fisher: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        return solve(fisher, gradient), jnp.asarray(EXERCISE_12_2.theta) + natural_step(
            fisher, gradient, EXERCISE_12_2.epsilon
        )

    update, (fisher, gradient) = updated(), compiled_in_double(of_draft)()
    _, theta_draft = compiled_in_double(step)(fisher, gradient)
    u, theta = compiled_in_double(step)(EXERCISE_12_2.fisher, EXERCISE_12_2.gradient)
    divergence = compiled_in_double(lambda new: worked.surrogate_divergence(EXAMPLE_12_1, new))(theta)
    steps = {
        "from F and the gradient as printed: F^-1": np.linalg.inv(EXERCISE_12_2.fisher),
        "u": u,
        "theta'": theta,
        "from a draft of the rollouts: F": fisher,
        "gradient": gradient,
        "theta' of the draft": theta_draft,
        "constraint of Example 12.1 at that theta'": divergence,
    }
    return Findings(
        {
            "F, printed": EXERCISE_12_2.fisher,
            "gradient, printed": EXERCISE_12_2.gradient,
            "theta": EXERCISE_12_2.theta,
            "epsilon": EXERCISE_12_2.epsilon,
            "tau1 of the draft": draft.actions[0],
        },
        steps,
        {
            "F^-1": np.array([[2.941, -0.008], [-0.008, 0.008]]),
            "u": np.array([1.0, 0.0]),
            "theta'": np.array([0.766, 1.0]),
        },
        {"F^-1": np.linalg.inv(update.fisher), "u": update.direction, "theta'": update.theta},
        tolerance=5e-4,
    )


def _find_mean_divergence() -> Findings:
    each, mean = compiled_in_double(
        lambda: (worked.divergences(EXERCISE_12_3), worked.mean_divergence(EXERCISE_12_3))
    )()
    old, new = np.asarray(EXERCISE_12_3.old), np.asarray(EXERCISE_12_3.new)
    terms = old[0] * compiled_in_double(lambda: table(old[:1]).log_probs - table(new[:1]).log_probs)()[0]
    return Findings(
        {"pi, by state": old, "pi', by state": new, "states visited": np.asarray(EXERCISE_12_3.visited) + 1},
        {
            "KL(pi || pi') at s1": each[0],
            "KL(pi || pi') at s2": each[1],
            "terms of the sum at s1": terms,
            "KL at s1 with the third term as printed": each[0] - terms[2],
        },
        {"mean of KL(pi || pi')": 0.285, "third term of KL at s1": 0.3 * np.log(0.3 / 0.3)},
        {"mean of KL(pi || pi')": mean, "third term of KL at s1": terms[2]},
        tolerance=5e-4,
    )


def _find_directions() -> Findings:
    old, new = np.asarray(EXERCISE_12_3.old), np.asarray(EXERCISE_12_3.new)
    shares = np.array([1.0, 0.1, 0.01, 0.001])

    def means(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        near = old + share * (new - old)
        one = EXERCISE_12_3._replace(new=near)
        return worked.mean_divergence(one), worked.mean_divergence(one._replace(old=near, new=old))

    forward, backward = compiled_in_double(jax.vmap(means))(shares)
    return Findings(
        {"pi, by state": old, "pi', by state": new, "states visited": np.asarray(EXERCISE_12_3.visited) + 1},
        {
            "shares of the way from pi to pi'": shares,
            "KL(pi || .) there": forward,
            "KL(. || pi) there": backward,
            "their ratio": backward / forward,
        },
        {"constraint": "KL(pi_old || pi)", "line search": "KL(pi || pi_old)", "its value at pi'": backward[0]},
        {"constraint": "KL(pi_old || pi)", "line search": "KL(pi_old || pi)", "its value at pi'": forward[0]},
    )


def _find_trajectories() -> Findings:
    update = updated()
    length = np.shape(EXAMPLE_12_1.actions)[1]
    return Findings(
        ROLLOUTS,
        {
            "theta'": update.theta,
            "quadratic estimate, a trajectory": EXAMPLE_12_1.epsilon,
            "mean divergence per step": update.divergence,
            "steps of a trajectory": length,
        },
        {"what epsilon bounds": update.divergence, "within epsilon": bool(update.divergence <= EXAMPLE_12_1.epsilon)},
        {
            "what epsilon bounds": length * update.divergence,
            "within epsilon": bool(length * update.divergence <= EXAMPLE_12_1.epsilon),
        },
    )


RATIOS, CLIP_RANGE = np.array([0.5, 0.79, 0.9, 1.0, 1.1, 1.21, 1.5]), 0.2


def _find_clip() -> Findings:
    def slopes(ratios: jax.Array) -> tuple[jax.Array, jax.Array]:
        def objective(log_ratios: jax.Array, advantage: float) -> jax.Array:
            return jnp.sum(
                clipped_surrogate(log_ratios, jnp.zeros_like(log_ratios), jnp.asarray(advantage), CLIP_RANGE)
            )

        return jax.grad(objective)(jnp.log(ratios), 1.0), jax.grad(objective)(jnp.log(ratios), -1.0)

    good, bad = compiled_in_double(slopes)(RATIOS)
    return Findings(
        {"ratios w": RATIOS, "clip range": CLIP_RANGE},
        {"slope of the objective, A = 1": good, "slope of the objective, A = -1": bad},
        {"no gradient, A > 0": RATIOS < 1.0 + CLIP_RANGE, "no gradient, A < 0": RATIOS > 1.0 - CLIP_RANGE},
        {"no gradient, A > 0": good == 0.0, "no gradient, A < 0": bad == 0.0},
    )


EXAMPLES = (
    Example(
        "example-12.1",
        "one update within a trust region",
        f"{BOOK}, Example 12.1",
        "From two rollouts of three steps, estimate the Fisher matrix and the gradient, make the natural step, and judge "
        "it by the surrogate objective and constraint.",
        "Wrong in three entries. F(tau2)[2, 2] is 57.012; 29.529 is the mean of both rollouts. That mean is printed as "
        "118.115, four times as much, left from a draft with doubled scores. F is symmetric, 1.020 on both sides. The "
        "step is right all the same: the returns are the first scores, so that the gradient is the first column of F, and "
        "F^-1 gradient is [1, 0] whatever the last entry is.",
        _find_example,
    ),
    Example(
        "exercise-12.1",
        "the gradient of the surrogate objective",
        f"{BOOK}, Exercise 12.1",
        "Is the gradient of the surrogate objective at the old parameters that of the reward-to-go?",
        "Right: at theta' = theta the surrogate objective of equation 12.18 has the gradient of the reward-to-go. "
        "Algorithm 12.5 computes a mean over the steps where the gradient is a sum, so that its objective has a third of "
        "that slope with three steps.",
        _find_gradients,
    ),
    Example(
        "exercise-12.2",
        "the inverse Fisher matrix of Example 12.1",
        f"{BOOK}, Exercise 12.2",
        "For Example 12.1, what are the inverse of the Fisher matrix, the natural gradient and the new parameters?",
        "Wrong as an answer for Example 12.1, right for the F and the gradient that it begins with. These belong to a "
        "draft: the second action of tau1 with the other sign, and the second score doubled. In Example 12.1 the step to "
        "0.766 would break the constraint of 0.1.",
        _find_inverse,
    ),
    Example(
        "exercise-12.3",
        "a mean divergence over visited states",
        f"{BOOK}, Exercise 12.3",
        "Two policies are tables. What is the mean of their divergence over five visited states?",
        "Wrong in one term, right in the result: the line for s1 has 0.3 log(0.3 / 0.3), and 0.3 log(0.3 / 0.2) is meant. "
        "With the term as printed the divergence at s1 would be 0.335 instead of 0.456.",
        _find_mean_divergence,
    ),
    Example(
        "divergence-direction",
        "KL(old || new) or KL(new || old)",
        f"{NATURAL_SLIDES}, line search; likewise Yang's slides on TRPO",
        "The constraint and the line search have the divergence in opposite directions. By how much do they differ, with "
        "the policies of Exercise 12.3?",
        "Wrong, though by little: the constraint has the old policy first, the line search has it last. The two agree to "
        "second order alone, so that their ratio goes to 1 as the policies get near. Jumar has the old policy first "
        "everywhere, like Schulman et al. 2015.",
        _find_directions,
    ),
    Example(
        "trajectory-divergence",
        "what epsilon bounds",
        f"{BOOK}, equations 12.7 and 12.19",
        "The same epsilon bounds the natural step and is the bound of the line search. What does it bound in Example 12.1?",
        "Wrong to read both as one bound. The natural step of equation 12.12 bounds the divergence of whole trajectories, "
        "to second order; the line search of Algorithm 12.5 checks the mean per step, some three times smaller here. The "
        "step that is accepted exceeds epsilon as a trajectory's divergence.",
        _find_trajectories,
    ),
    Example(
        "clip-condition",
        "where the clamped objective has no gradient",
        f"{BOOK}, section 12.5",
        "For which probability ratios does an action no longer count in the gradient of the clamped surrogate objective?",
        "Wrong: the prose of section 12.5 has both conditions the wrong way round, Algorithm 12.6 has them right. By the "
        "prose the gradient would be 0 at w = 1, where every update begins, so that no step would ever be taken.",
        _find_clip,
    ),
)
"""The examples of this module."""
